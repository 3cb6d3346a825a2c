package pabalsns

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/pabal-go/pabal/driver"
)

// What an error of AWS means. Every code below is listed among the common errors or the errors of an action in the API
// references of SNS, SQS or IAM; the two services spell the same thing differently, and SQS's JSON protocol
// differently from its query protocol.

// fault says whose fault an error is.
type fault int

const (
	unknown     fault = iota // nobody knows what happened
	throttled                // too many calls: later
	destination              // the topic, the queue, the key or the credentials
	refused                  // the call's content: the same call will never succeed
)

const (
	throttledDelay = 5 * time.Second
	delayMost      = time.Minute
)

var faults = codes(map[fault]string{
	throttled: `Throttling ThrottlingException Throttled ThrottledException RequestThrottled RequestThrottledException
		TooManyRequests TooManyRequestsException RequestLimitExceeded BandwidthLimitExceeded LimitExceededException SlowDown
		PriorRequestNotComplete TransactionInProgressException ProvisionedThroughputExceededException
		KMSThrottling KMSThrottlingException KmsThrottled KMS.ThrottlingException OverLimit
		AWS.SimpleQueueService.OverLimit`,
	destination: `ExpiredToken ExpiredTokenException InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch
		InvalidSignatureException IncompleteSignature MissingAuthenticationToken MissingAuthenticationTokenException
		InvalidAccessKeyId RequestExpired InvalidSecurity InvalidSecurityException OptInRequired NotAuthorized
		AccessDenied AccessDeniedException AuthorizationError AuthorizationErrorException EndpointDisabled
		NotFound NotFoundException ResourceNotFound ResourceNotFoundException
		QueueDoesNotExist AWS.SimpleQueueService.NonExistentQueue QueueDeletedRecently
		AWS.SimpleQueueService.QueueDeletedRecently InvalidAddress UnsupportedOperation AWS.SimpleQueueService.UnsupportedOperation
		KMSAccessDenied KMSAccessDeniedException KmsAccessDenied KMS.AccessDeniedException KMSDisabled KMSDisabledException
		KmsDisabled KMS.DisabledException KMSInvalidState KMSInvalidStateException KmsInvalidState KMS.InvalidStateException
		KMSNotFound KMSNotFoundException KmsNotFound KMS.NotFoundException KMSOptInRequired KmsOptInRequired
		KMS.OptInRequired KmsInvalidKeyUsage`,
	refused: `InvalidParameter InvalidParameterException InvalidParameterValue InvalidParameterValueException
		ParameterValueInvalid InvalidMessageContents ValidationError ValidationException BatchRequestTooLong
		BatchRequestTooLongException AWS.SimpleQueueService.BatchRequestTooLong UserError MalformedInput`,
})

func codes(lists map[fault]string) map[string]fault {
	all := map[string]fault{}
	for f, list := range lists {
		for _, code := range strings.Fields(list) {
			all[code] = f
		}
	}
	return all
}

// faultOf says whose fault an error of a call is.
func faultOf(err error) fault {
	var credentials *credentialsError
	if errors.As(err, &credentials) {
		return destination
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if f, known := faults[api.ErrorCode()]; known {
			return f
		}
	}
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) {
		switch answer.HTTPStatusCode() {
		case http.StatusTooManyRequests:
			return throttled
		case http.StatusUnauthorized, http.StatusForbidden:
			return destination
		}
	}
	return unknown
}

// verdictOf says what the error of a whole call means for one of its messages; alone: it was the only one.
func verdictOf(err error, alone bool) driver.Verdict {
	switch f := faultOf(err); {
	case f == throttled:
		return driver.Verdict{Delay: delayOf(err), Err: err}
	case f == destination:
		return driver.Verdict{Err: fmt.Errorf("%w: %w", driver.ErrDestination, err)}
	case f == refused && alone:
		return driver.Verdict{Kind: driver.Never, Err: err}
	default:
		return driver.Verdict{Err: err}
	}
}

// verdictOfEntry says what an entry of a list Failed means.
func verdictOfEntry(code, text string, senderFault bool) driver.Verdict {
	err := &smithy.GenericAPIError{Code: code, Message: text}
	switch f := faults[code]; {
	case f == throttled:
		return driver.Verdict{Delay: throttledDelay, Err: err}
	case f == destination:
		return driver.Verdict{Err: fmt.Errorf("%w: %w", driver.ErrDestination, err)}
	case senderFault:
		return driver.Verdict{Kind: driver.Never, Err: err}
	default:
		return driver.Verdict{Err: err}
	}
}

// delayOf is how long to leave a service alone that throttles.
func delayOf(err error) time.Duration {
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil {
		if s, err := strconv.Atoi(answer.Response.Header.Get("Retry-After")); err == nil && s > 0 {
			return min(time.Duration(s)*time.Second, delayMost)
		}
	}
	return throttledDelay
}

// hasCode reports whether AWS answered with one of these error codes.
func hasCode(err error, codes ...string) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, code := range codes {
		if api.ErrorCode() == code {
			return true
		}
	}
	return false
}
