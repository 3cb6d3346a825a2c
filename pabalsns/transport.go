package pabalsns

import (
	"context"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// idleConns is how many idle connections are kept to an endpoint: as many as calls run at a time, or else each burst of
// calls pays for new TLS connections.
const idleConns = 128

// readOnlyClient hides everything but Read and Close of a request's body from net/http.
//
// The SDK's transport (smithy-go) closes a request's body as soon as the response's headers are in. net/http may then still
// be probing it, through io.WriterTo, for more than Content-Length says; it takes the EOF of the closed body for a write
// error and closes the connection, under the body of the response. With retries the SDK hides that. Messages that
// were in such a response stay in flight until their visibility timeout has passed; on the loopback interface these
// were 1.3 % of all.
type readOnlyClient struct{ client aws.HTTPClient }

func readOnlyBodies(client aws.HTTPClient) aws.HTTPClient {
	if client == nil {
		client = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConns, t.MaxIdleConnsPerHost = 2*idleConns, idleConns
		})
	}
	return readOnlyClient{client}
}

func (c readOnlyClient) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.Clone(r.Context())
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.client.Do(r)
}

// credentialsError says that there are no credentials: nothing was sent.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "AWS credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// markedCredentials tells its own errors from the network's, which the SDK does not by type.
type markedCredentials struct{ aws.CredentialsProvider }

func markErrors(p aws.CredentialsProvider) aws.CredentialsProvider {
	if p == nil {
		return nil
	}
	return markedCredentials{p}
}

func (m markedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := m.CredentialsProvider.Retrieve(ctx)
	if err != nil && ctx.Err() == nil {
		err = &credentialsError{err}
	}
	return c, err
}
