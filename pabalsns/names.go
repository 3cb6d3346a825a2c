package pabalsns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/pabal-go/pabal/driver"
)

// Names at AWS. The core knows a topic or a queue by its short name; AWS wants the ARN of a topic and the URL of a queue. A
// FIFO topic or queue ends in ".fifo" (CreateTopic, CreateQueue in the API references).

// account is where an installation lies.
type account struct{ partition, id string }

// home answers where we are, from an ARN that was seen before, or else by asking STS, which needs no permission
// (GetCallerIdentity in the API reference).
func (b *Broker) home(ctx context.Context) (account, error) {
	b.mu.Lock()
	known := b.account
	b.mu.Unlock()
	if known.id != "" {
		return known, nil
	}
	out, err := b.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return account{}, fmt.Errorf("look up the AWS account: %w", err)
	}
	partition := "aws"
	if parts := strings.Split(aws.ToString(out.Arn), ":"); len(parts) > 1 && parts[1] != "" {
		partition = parts[1]
	}
	return b.learn(account{partition, aws.ToString(out.Account)}), nil
}

func (b *Broker) learn(a account) account {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.account = a
	return a
}

func (b *Broker) fifoQueue(name string) bool {
	if url, brought := b.o.Queues[name]; brought {
		return isFIFO(url)
	}
	return slices.Contains(b.o.FIFOQueues, name)
}

// recordPrefix begins the names of record queues.
const recordPrefix = "event-record-"

// queueName is the name at AWS of a queue of ours.
func (b *Broker) queueName(name string) string {
	if url, brought := b.o.Queues[name]; brought {
		return url[strings.LastIndexByte(url, '/')+1:]
	}
	return b.atAWS(name, b.fifoQueue(name))
}

func isFIFO(name string) bool { return strings.HasSuffix(name, fifoSuffix) }

// atAWS is the name at AWS of a topic or queue of ours.
func (b *Broker) atAWS(name string, fifo bool) string {
	if fifo {
		return b.o.Prefix + name + fifoSuffix
	}
	return b.o.Prefix + name
}

// deadQueue is the name at AWS of the dead-letter queue of a queue of ours. FIFO queues, and subscriptions to FIFO topics,
// want a FIFO one, standard ones a standard one ("Amazon SNS dead-letter queues" in the developer guide), so that a
// standard queue that is subscribed to both kinds has two.
func (b *Broker) deadQueue(name string, fifo bool) string { return b.atAWS(name+deadSuffix, fifo) }

func (a account) arn(service, region, name string) string {
	return strings.Join([]string{"arn", a.partition, service, region, a.id, name}, ":")
}

func nameOfARN(arn string) string { return arn[strings.LastIndexByte(arn, ':')+1:] }

// topicARN answers a topic's ARN, from memory or by looking it up.
func (b *Broker) topicARN(ctx context.Context, name string) (string, error) {
	b.mu.Lock()
	arn := b.topics[name]
	b.mu.Unlock()
	if arn != "" {
		return arn, nil
	}
	arn, _, err := b.findTopic(ctx, name)
	if err == nil && arn == "" {
		err = fmt.Errorf("%w: no topic %s", driver.ErrDestination, name)
	}
	return arn, err
}

// findTopic looks a topic up; no ARN: there is none. With Options.FIFO a topic may be of either kind: which one it became was
// decided by whoever made it, and both at once would part its publishers from its queues.
func (b *Broker) findTopic(ctx context.Context, name string) (arn string, attributes map[string]string, err error) {
	candidates := []string{b.o.Topics[name]}
	if candidates[0] == "" {
		a, err := b.home(ctx)
		if err != nil {
			return "", nil, err
		}
		candidates[0] = a.arn("sns", b.region, b.atAWS(name, false))
		if b.o.FIFO {
			candidates = append(candidates, a.arn("sns", b.region, b.atAWS(name, true)))
		}
	}
	for _, candidate := range candidates {
		out, err := b.snsAdmin.GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: &candidate})
		switch {
		case hasCode(err, "NotFound", "NotFoundException"):
			continue
		case err != nil:
			return "", nil, fmt.Errorf("look up topic %s: %w", name, err)
		case arn != "":
			return "", nil, fmt.Errorf("topic %s is there as a standard and as a FIFO topic: delete the one without subscriptions", name)
		}
		arn, attributes = candidate, out.Attributes
	}
	if arn != "" {
		b.mu.Lock()
		b.topics[name] = arn
		b.mu.Unlock()
	}
	return arn, attributes, nil
}

// queueURL answers a queue's URL, from memory or by looking it up.
func (b *Broker) queueURL(ctx context.Context, name string) (string, error) {
	if url := b.o.Queues[name]; url != "" {
		return url, nil
	}
	b.mu.Lock()
	url := b.urls[name]
	b.mu.Unlock()
	if url != "" {
		return url, nil
	}
	url, err := b.findQueue(ctx, b.queueName(name))
	if err != nil {
		return "", err
	}
	if url == "" {
		return "", fmt.Errorf("%w: no queue %s", driver.ErrDestination, name)
	}
	b.mu.Lock()
	b.urls[name] = url
	b.mu.Unlock()
	return url, nil
}

// findQueue looks up the URL of a queue by its name at AWS; "": there is none.
func (b *Broker) findQueue(ctx context.Context, name string) (string, error) {
	out, err := b.sqsAdmin.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if noQueue(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look up queue %s: %w", name, err)
	}
	return aws.ToString(out.QueueUrl), nil
}

func noQueue(err error) bool {
	return hasCode(err, "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue")
}

// forget drops what is remembered of a destination that answered that it is not there.
func (b *Broker) forget(to driver.Destination, err error) {
	if !errors.Is(err, driver.ErrDestination) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if to.Queue != "" {
		delete(b.urls, to.Queue)
	} else {
		delete(b.topics, to.Topic)
	}
}
