package pabalsns_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/pabalsns"
)

// Region, credentials and endpoint come from where every program that uses the AWS SDK has them.
func ExampleOpen() {
	ctx := context.Background()
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		log.Fatal(err)
	}
	broker, err := pabalsns.Open(cfg, &pabalsns.Options{
		Prefix: "acme-",
		Topics: map[string]string{"order-pay-done": "arn:aws:sns:ap-northeast-2:123456789012:Legacy_OrderPaid"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close() //nolint:errcheck // the process ends
	// client, err := pabal.New(ctx, store, broker, "order", nil)
}

// What a consumer's role may do, for whoever writes the roles.
func ExampleBroker_Print() {
	broker, err := pabalsns.Open(configuration("http://127.0.0.1:4566"), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer broker.Close() //nolint:errcheck // of an example
	err = broker.Print(os.Stdout, "iam:consumer", driver.Topology{Queues: []driver.QueueSpec{{Name: "settlement"}}})
	fmt.Println(err)
	// Output:
	// {
	//   "Statement": [
	//     {
	//       "Action": [
	//         "sqs:GetQueueUrl",
	//         "sqs:GetQueueAttributes",
	//         "sqs:ReceiveMessage",
	//         "sqs:DeleteMessage",
	//         "sqs:ChangeMessageVisibility"
	//       ],
	//       "Effect": "Allow",
	//       "Resource": [
	//         "arn:aws:sqs:us-east-1:*:settlement"
	//       ]
	//     },
	//     {
	//       "Action": [
	//         "sqs:GetQueueUrl",
	//         "sqs:SendMessage"
	//       ],
	//       "Effect": "Allow",
	//       "Resource": [
	//         "arn:aws:sqs:us-east-1:*:pabal-verify-*"
	//       ]
	//     },
	//     {
	//       "Action": [
	//         "sqs:GetQueueUrl",
	//         "sqs:GetQueueAttributes"
	//       ],
	//       "Effect": "Allow",
	//       "Resource": [
	//         "arn:aws:sqs:us-east-1:*:*-dlq",
	//         "arn:aws:sqs:us-east-1:*:*-dlq.fifo"
	//       ]
	//     }
	//   ],
	//   "Version": "2012-10-17"
	// }
	// <nil>
}
