// Package pabalsns carries Pabal's events over Amazon SNS fanning out to Amazon SQS.
//
//	cfg, err := config.LoadDefaultConfig(ctx)     // of aws-sdk-go-v2: profile, region, role, AWS_ENDPOINT_URL
//	broker, err := pabalsns.Open(cfg, nil)
//
// A topic is an SNS topic, a queue is an SQS queue; a subscription with raw delivery copies from the one to the other. Each
// queue has a dead-letter queue beside it, which takes what SNS cannot deliver and what was received too often. Client.Run
// makes what is missing; where a service may not, [Broker.Print] writes what somebody else has to make, and `pabal topology
// verify` finds what is wrong with it.
//
// An answer of AWS says less than it seems to: a batch call that succeeded has stored only what it names in its list
// Successful, and "published" means that SNS has the message, not that a queue has. What follows from that is written
// where it is decided: verdict.go, publish.go, receive.go, acknowledge.go.
package pabalsns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/pabal-go/pabal/driver"
)

// Options of [Open]. Nil and zero values are the good defaults. All processes of an installation use the same ones.
type Options struct {
	// Prefix stands before the name of every topic and queue at AWS: installations of different prefixes share nothing in
	// an account and region. Up to 30 letters, digits, '-' and '_'; it shortens the names that are left to topics and
	// queues, see Limits. Default none.
	Prefix string
	// FIFO makes topics whose events have keys FIFO topics. Pabal keeps the order of a key without it, over standard
	// topics, which are cheaper and have no limit of throughput; a FIFO topic helps other consumers than Pabal's.
	FIFO bool
	// FIFOQueues names the queues that are FIFO queues; all their topics must be FIFO topics. Record queues never are.
	FIFOQueues []string
	// Hold is how long a received message is left to its receiver before it is delivered again (the visibility timeout),
	// in whole seconds. 1 s to 12 h, default 30 s.
	Hold time.Duration
	// Wait is how long a receive waits at SQS for a message, in whole seconds. 1 s to 20 s, default 10 s, so that a shutdown
	// needs no longer.
	Wait time.Duration
	// MaxReceives is after how many receives without an acknowledgement SQS moves a message to the dead-letter queue. Pabal keeps
	// what a handler cannot handle in its inbox, so only what it never got to store comes there. 20 to 1,000, default 100.
	MaxReceives int
	// Retention is how long a message waits in a queue for a service that is away. 1 h to 13 days, default 10 days.
	Retention time.Duration
	// DeadRetention is how long a message is kept from its first queue on, once it is in a dead-letter queue. Longer
	// than Retention, at most 14 days, default 14 days.
	DeadRetention time.Duration
	// Topics are existing topics, by ARN, for topics of Pabal. They are used as they are, and neither made nor changed.
	Topics map[string]string
	// Queues are existing queues, by URL, for queues of Pabal. They are used as they are, and neither made nor changed.
	Queues map[string]string
	// TopicKey and QueueKey are KMS keys (id, alias or ARN) that new topics and queues are encrypted with. The key's policy must
	// let sns.amazonaws.com do kms:GenerateDataKey* and kms:Decrypt. Default: what AWS does without one (SSE-SQS).
	TopicKey string
	QueueKey string
	// Logger gets what an operator would act on. Default slog.Default().
	Logger *slog.Logger
}

const (
	messageBytes   = 256 << 10 // a topic's default MaximumMessageSize, which is also the limit of a batch's sum
	batchEntries   = 10        // of every batch call of SNS and SQS
	inFlightMost   = 120_000   // AWS: messages in flight per queue, then OverLimit
	queueNameBytes = 80
	deadSuffix     = "-dlq"
	fifoSuffix     = ".fifo"
	day            = 24 * time.Hour
	// deliveryTime is how long SNS tries to deliver to a queue: 100,015 times over 23 days.
	deliveryTime = 23 * day
)

var (
	prefixForm   = regexp.MustCompile(`^[A-Za-z0-9_-]{0,30}$`)
	topicARNForm = regexp.MustCompile(`^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$`)
	queueURLForm = regexp.MustCompile(`^https?://[^/]+/(.+/)?[A-Za-z0-9_-]{1,80}(\.fifo)?$`)
)

func (o *Options) fill() (Options, error) {
	f := Options{}
	if o != nil {
		f = *o
	}
	orDefault(&f.Hold, 30*time.Second)
	orDefault(&f.Wait, 10*time.Second)
	orDefault(&f.MaxReceives, 100)
	orDefault(&f.Retention, 10*day)
	orDefault(&f.DeadRetention, 14*day)
	if f.Logger == nil {
		f.Logger = slog.Default()
	}
	errs := []error{
		between("Hold", f.Hold, time.Second, 12*time.Hour),
		between("Wait", f.Wait, time.Second, 20*time.Second),
		between("MaxReceives", f.MaxReceives, 20, 1000),
		between("Retention", f.Retention, time.Hour, 13*day),
		between("DeadRetention", f.DeadRetention, f.Retention+time.Second, 14*day),
	}
	if f.Hold%time.Second != 0 || f.Wait%time.Second != 0 {
		errs = append(errs, fmt.Errorf("pabalsns: Options.Hold is %v, Options.Wait %v: whole seconds", f.Hold, f.Wait))
	}
	if !prefixForm.MatchString(f.Prefix) {
		errs = append(errs, fmt.Errorf("pabalsns: Options.Prefix is %q: up to 30 letters, digits, '-' and '_'", f.Prefix))
	}
	for name, arn := range f.Topics {
		if !topicARNForm.MatchString(arn) {
			errs = append(errs, fmt.Errorf("pabalsns: Options.Topics[%q] is %q: the ARN of an SNS topic", name, arn))
		}
	}
	for name, url := range f.Queues {
		if !queueURLForm.MatchString(url) {
			errs = append(errs, fmt.Errorf("pabalsns: Options.Queues[%q] is %q: the URL of an SQS queue", name, url))
		}
	}
	for _, name := range f.FIFOQueues {
		if strings.HasPrefix(name, recordPrefix) {
			errs = append(errs, fmt.Errorf("pabalsns: Options.FIFOQueues names %q: record queues are standard queues", name))
		}
	}
	return f, errors.Join(errs...)
}

func orDefault[N int | time.Duration](field *N, value N) {
	if *field == 0 {
		*field = value
	}
}

func between[N int | time.Duration](field string, value, low, high N) error {
	if value >= low && value <= high {
		return nil
	}
	return fmt.Errorf("pabalsns: Options.%s is %v: from %v to %v", field, value, low, high)
}

// Broker is an installation at AWS. It implements driver.Broker and driver.Surveyor.
type Broker struct {
	o      Options
	region string
	log    *slog.Logger

	sns *sns.Client // for messages: each call is one try, for the core tries again
	sqs *sqs.Client
	sts *sts.Client
	// For topology, whose calls change nothing when they are done twice: with the retries that the caller configured.
	snsAdmin *sns.Client
	sqsAdmin *sqs.Client

	mu      sync.Mutex
	account account
	topics  map[string]string    // ARNs by the names that the core knows
	urls    map[string]string    // URLs of queues, likewise
	readers map[string]*reader   // by queue
	ackers  map[string]*gatherer // by queue
	warned  map[string]time.Time // when a kind of trouble was last logged
	work    sync.WaitGroup       // calls that no caller waits for
	closing context.Context      // ends with Close
	close   context.CancelFunc
}

var (
	_ driver.Broker   = (*Broker)(nil)
	_ driver.Surveyor = (*Broker)(nil)
)

// Open makes a broker of a configuration of the AWS SDK, as config.LoadDefaultConfig returns it: credentials, region,
// endpoint and HTTP client are its matter. Nothing is sent before the broker is used. A Broker is safe for concurrent use.
func Open(cfg aws.Config, o *Options) (*Broker, error) {
	options, err := o.fill()
	if err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		return nil, errors.New("pabalsns: no region: set AWS_REGION, or region in the profile")
	}
	for name, arn := range options.Topics {
		if region := strings.Split(arn, ":")[3]; region != cfg.Region {
			return nil, fmt.Errorf("pabalsns: Options.Topics[%q] lies in %s, the broker in %s", name, region, cfg.Region)
		}
	}
	cfg = cfg.Copy()
	cfg.HTTPClient = readOnlyBodies(cfg.HTTPClient)
	cfg.Credentials = markErrors(cfg.Credentials)
	b := &Broker{
		o: options, region: cfg.Region, log: options.Logger, sts: sts.NewFromConfig(cfg),
		snsAdmin: sns.NewFromConfig(cfg), sqsAdmin: sqs.NewFromConfig(cfg),
		sns: sns.NewFromConfig(cfg, func(o *sns.Options) { o.Retryer = aws.NopRetryer{} }),
		sqs: sqs.NewFromConfig(cfg, func(o *sqs.Options) {
			o.Retryer = aws.NopRetryer{}
			o.DisableMessageChecksumValidation = true // publish.go and receive.go do it per message
		}),
		topics: map[string]string{}, urls: map[string]string{}, readers: map[string]*reader{},
		ackers: map[string]*gatherer{}, warned: map[string]time.Time{},
	}
	b.closing, b.close = context.WithCancel(context.Background())
	return b, nil
}

// Limits implements driver.Broker. Names are what SQS leaves of its 80 characters beside the prefix and the suffixes of a
// FIFO dead-letter queue.
func (b *Broker) Limits() driver.Limits {
	return driver.Limits{
		Message: messageBytes, Batch: batchEntries, BatchBytes: messageBytes, Receive: batchEntries, InFlight: inFlightMost,
		Name: queueNameBytes - len(b.o.Prefix) - len(deadSuffix) - len(fifoSuffix),
		Hold: b.o.Hold, Wait: b.o.Wait, Redelivery: deliveryTime + b.o.DeadRetention,
	}
}

// Close implements driver.Broker: it waits for the receives that are on their way, at most Options.Wait and a moment, gives
// back what they bring, and sends the acknowledgements that wait.
func (b *Broker) Close() error {
	b.close()
	b.mu.Lock()
	readers, ackers := b.readers, b.ackers
	b.mu.Unlock()
	for _, r := range readers {
		r.end()
	}
	b.work.Wait()
	for _, g := range ackers {
		g.flush()
	}
	b.work.Wait()
	return nil
}

// warn logs trouble that repeats, at most once a minute and kind.
func (b *Broker) warn(kind, text string, args ...any) {
	now := time.Now()
	b.mu.Lock()
	quiet := now.Sub(b.warned[kind]) < time.Minute
	if !quiet {
		b.warned[kind] = now
	}
	b.mu.Unlock()
	if !quiet {
		b.log.Warn(text, args...)
	}
}
