package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/nats-io/nats.go"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalnats"
	"github.com/pabal-go/pabal/pabalsns"
)

// brokerKind is a kind of broker: an address whose scheme is one of its own opens it. A further kind is an entry of brokerKinds.
type brokerKind struct {
	schemes []string
	form    string // for help and errors
	open    func(a *app, address, rest string) (driver.Broker, error)
}

var brokerKinds = []brokerKind{
	{[]string{"nats", "tls"}, "nats://HOST:PORT", openNATS},
	{[]string{"embedded"}, "embedded:DIRECTORY for NATS JetStream in this process", openEmbedded},
	{[]string{"sns"}, "sns:[PREFIX][?SETTING=VALUE&…] for Amazon SNS and SQS", openSNS},
}

// brokerForms are what an address may look like.
func brokerForms() string {
	var forms []string
	for _, k := range brokerKinds {
		forms = append(forms, k.form)
	}
	return strings.Join(forms, ", ")
}

// brokerFlags name a broker.
type brokerFlags struct {
	Broker string `help:"The broker: ${brokers}." placeholder:"ADDRESS" env:"PABAL_BROKER"`
	Fixed  bool   `help:"Create no topics, queues or subscriptions; name what is missing." env:"PABAL_FIXED_TOPOLOGY"`
}

func openBroker(a *app, address string) (driver.Broker, error) {
	scheme, rest, _ := strings.Cut(address, ":")
	for _, k := range brokerKinds {
		if slices.Contains(k.schemes, scheme) {
			b, err := k.open(a, address, rest)
			if err != nil {
				return nil, fmt.Errorf("--broker %s: %w", redacted(address), err)
			}
			return b, nil
		}
	}
	return nil, usage("--broker %q: give %s", redacted(address), brokerForms())
}

// lookAtBroker is openBroker for reading: it makes no directory that is missing.
func lookAtBroker(a *app, address string) (driver.Broker, error) {
	if directory, embedded := strings.CutPrefix(address, "embedded:"); embedded && directory != "" {
		if _, err := os.Stat(directory); err != nil {
			return nil, usage("--broker %s: %w", address, err)
		}
	}
	return openBroker(a, address)
}

func openNATS(a *app, address, rest string) (driver.Broker, error) {
	if !strings.HasPrefix(rest, "//") {
		return nil, usage("give nats://HOST:PORT")
	}
	servers, o, err := natsOptions(address)
	if err != nil {
		return nil, usage("%w", err)
	}
	o.Logger = a.log
	return pabalnats.Connect(a.ctx, servers, &o)
}

// natsOptions takes an address apart: the servers, and what is set of them.
func natsOptions(address string) (servers string, o pabalnats.Options, err error) {
	servers, query, _ := strings.Cut(address, "?")
	settings, err := url.ParseQuery(query)
	if err == nil {
		err = setNATS(&o, settings)
	}
	return servers, o, err
}

// setNATS sets what an address has after its servers.
func setNATS(o *pabalnats.Options, settings url.Values) (err error) {
	if settings.Has("cert") != settings.Has("key") {
		return errors.New("cert and key: give both files")
	}
	for name := range settings {
		value := settings.Get(name)
		switch name {
		case "ca":
			o.NATS = append(o.NATS, nats.RootCAs(value))
		case "cert":
			o.NATS = append(o.NATS, nats.ClientCert(value, settings.Get("key")))
		case "key": // with cert
		case "creds":
			o.NATS = append(o.NATS, nats.UserCredentials(value))
		case "nkey":
			var seed nats.Option
			if seed, err = nats.NkeyOptionFromSeed(value); err == nil {
				o.NATS = append(o.NATS, seed)
			}
		case "stream":
			o.Stream = value
		case "replicas":
			o.Replicas, err = strconv.Atoi(value)
		case "hold":
			o.Hold, err = time.ParseDuration(value)
		case "retention":
			o.Retention, err = time.ParseDuration(value)
		default:
			err = errors.New("no such setting; there are ca, cert, key, creds, nkey (files), stream, replicas, hold, retention")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func openEmbedded(a *app, _, directory string) (driver.Broker, error) {
	if directory == "" {
		return nil, usage("give embedded:DIRECTORY")
	}
	b, err := pabalnats.Open(directory, &pabalnats.Options{Logger: a.log})
	if err != nil {
		return nil, usage("%w", err)
	}
	return b, nil
}

// openSNS takes credentials, region and endpoint from where the AWS SDK takes them: profile, environment, role,
// AWS_ENDPOINT_URL. The address has what is Pabal's own.
func openSNS(a *app, _, rest string) (driver.Broker, error) {
	o, err := snsOptions(rest)
	if err != nil {
		return nil, usage("%w", err)
	}
	o.Logger = a.log
	cfg, err := config.LoadDefaultConfig(a.ctx)
	if err != nil {
		return nil, usage("%w", err)
	}
	b, err := pabalsns.Open(cfg, &o)
	if err != nil {
		return nil, usage("%w", err)
	}
	return b, nil
}

// snsOptions reads what an address has behind its scheme.
func snsOptions(rest string) (o pabalsns.Options, err error) {
	prefix, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	o.Prefix = prefix
	settings, err := url.ParseQuery(query)
	if err != nil {
		return o, err
	}
	for name, values := range settings {
		if err := setSNS(&o, name, values[len(values)-1]); err != nil {
			return o, fmt.Errorf("%s: %w", name, err)
		}
	}
	return o, nil
}

func setSNS(o *pabalsns.Options, name, value string) (err error) {
	for what, to := range map[string]*map[string]string{"topic.": &o.Topics, "queue.": &o.Queues} {
		if own, ok := strings.CutPrefix(name, what); ok && own != "" {
			if *to == nil {
				*to = map[string]string{}
			}
			(*to)[own] = value
			return nil
		}
	}
	switch name {
	case "fifo":
		o.FIFO, err = strconv.ParseBool(value)
	case "fifo_queues":
		o.FIFOQueues = strings.Split(value, ",")
	case "hold":
		o.Hold, err = time.ParseDuration(value)
	case "wait":
		o.Wait, err = time.ParseDuration(value)
	case "retention":
		o.Retention, err = time.ParseDuration(value)
	case "topic_key":
		o.TopicKey = value
	case "queue_key":
		o.QueueKey = value
	default:
		err = errors.New("no such setting; there are fifo, fifo_queues, hold, wait, retention, topic_key, queue_key, " +
			"topic.NAME (an existing topic's ARN) and queue.NAME (an existing queue's URL)")
	}
	return err
}
