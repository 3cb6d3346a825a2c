package pabalsns_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"

	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/hostile"
	"github.com/pabal-go/pabal/internal/servers"
	"github.com/pabal-go/pabal/pabalsns"
)

// stage is a broker behind a proxy that the test tells what to answer, with its village there.
func stage(t *testing.T, o pabalsns.Options) (*pabalsns.Broker, *hostile.Proxy) {
	t.Helper()
	proxy := hostile.Start(t, servers.Fauxqs(t, false).URL, 1, hostile.Rates{})
	b := open(t, proxy.URL, o)
	check(t, b, village)
	return b, proxy
}

var (
	paid       = driver.Destination{Topic: "paid"}
	settlement = driver.Destination{Queue: "settlement"}
)

func messages(texts ...string) (list []driver.Message) {
	for _, text := range texts {
		id := uuid.New()
		list = append(list, driver.Message{ID: id, Dedup: id.String() + "/0", Body: []byte(text)})
	}
	return list
}

// verdicts is the answer in short: "accepted again never", with "!" for a destination's fault and "+" for a delay.
func verdicts(list []driver.Verdict) string {
	var text []string
	for _, v := range list {
		s := v.Kind.String()
		if errors.Is(v.Err, driver.ErrDestination) {
			s += "!"
		}
		if v.Delay > 0 {
			s += "+"
		}
		if (v.Err == nil) != (v.Kind == driver.Accepted) {
			s += "?"
		}
		text = append(text, s)
	}
	return strings.Join(text, " ")
}

func snsAnswer(successful []string, failed ...string) hostile.Answer {
	var b strings.Builder
	b.WriteString("<PublishBatchResponse><PublishBatchResult><Successful>")
	for _, id := range successful {
		fmt.Fprintf(&b, "<member><Id>%s</Id><MessageId>m</MessageId></member>", id)
	}
	b.WriteString("</Successful><Failed>")
	for _, f := range failed {
		id, rest, _ := strings.Cut(f, " ")
		code, sender, _ := strings.Cut(rest, " ")
		fmt.Fprintf(&b, "<member><Id>%s</Id><Code>%s</Code><SenderFault>%v</SenderFault></member>", id, code, sender == "sender")
	}
	b.WriteString("</Failed></PublishBatchResult></PublishBatchResponse>")
	return hostile.Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"text/xml"}}, Body: b.String()}
}

func jsonAnswer(body string) hostile.Answer {
	return hostile.Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, Body: body}
}

// Only an id in Successful was stored; SenderFault says never, no SenderFault again; an id in neither list is again.
func TestOnlyWhatIsInSuccessfulIsAccepted(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{})
	for _, c := range []struct {
		what   string
		to     driver.Destination
		answer hostile.Answer
		want   string
	}{
		{"half", paid, snsAnswer([]string{"1"}, "0 InternalError", "2 InvalidParameter sender"), "again accepted never"},
		{"in neither list", paid, snsAnswer([]string{"0"}, "1 InternalError"), "accepted again again"},
		{"empty lists", paid, snsAnswer(nil), "again again again"},
		{"an empty body", paid, hostile.Answer{Status: http.StatusOK}, "again again again"},
		{"throttled entries", paid, snsAnswer([]string{"0"}, "1 Throttled sender", "2 KMSThrottling"), "accepted again+ again+"},
		{"denied entries", paid, snsAnswer(nil, "0 AuthorizationError sender", "1 KMSAccessDenied sender"), "again! again! again"},
		{"half of a send", settlement, jsonAnswer(`{"Successful":[{"Id":"0"}],"Failed":[{"Id":"1","Code":"InternalError","SenderFault":false},
			{"Id":"2","Code":"InvalidMessageContents","SenderFault":true}]}`), "accepted again never"},
		{"empty lists of a send", settlement, jsonAnswer(`{}`), "again again again"},
		{"a wrong checksum", settlement, jsonAnswer(`{"Successful":[{"Id":"0","MD5OfMessageBody":"0cc175b9c0f1b6a831c399e269772661"},
			{"Id":"1","MD5OfMessageBody":"0cc175b9c0f1b6a831c399e269772661"}]}`), "accepted again again"},
	} {
		action := "PublishBatch"
		if c.to.Queue != "" {
			action = "SendMessageBatch"
		}
		proxy.Script(action, c.answer)
		if got := verdicts(b.Publish(t.Context(), c.to, messages("a", "b", "c"))); got != c.want {
			t.Errorf("%s: %s, not %s", c.what, got, c.want)
		}
	}
}

// Throttling in all spellings is again with a delay; what is the destination's fault parks nothing; each message is tried once.
func TestRefusalsOfAWholeCall(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{})
	try := func(sns bool, status int, code, want string) {
		t.Helper()
		to, action := settlement, "SendMessageBatch"
		if sns {
			to, action = paid, "PublishBatch"
		}
		before := proxy.Calls()[action]
		proxy.Script(action, hostile.Refusal(sns, status, code))
		if got := verdicts(b.Publish(t.Context(), to, messages("a", "b"))); got != want {
			t.Errorf("%d %s at %s: %s, not %s", status, code, to, got, want)
		}
		if n := proxy.Calls()[action] - before; n != 1 {
			t.Errorf("%d %s at %s: %d calls", status, code, to, n)
		}
	}
	for _, sns := range []bool{true, false} {
		for _, code := range hostile.Spellings {
			try(sns, http.StatusBadRequest, code, "again+ again+")
		}
		try(sns, http.StatusTooManyRequests, "SomethingNew", "again+ again+")
		for _, code := range []string{
			"ExpiredToken", "AuthorizationError", "AccessDenied", "AccessDeniedException", "NotFound", "QueueDoesNotExist",
			"InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "KMSDisabled", "KmsAccessDenied",
		} {
			try(sns, http.StatusBadRequest, code, "again! again!")
		}
		try(sns, http.StatusForbidden, "SomethingNew", "again! again!")
		try(sns, http.StatusInternalServerError, "InternalError", "again again")
		try(sns, http.StatusServiceUnavailable, "ServiceUnavailable", "again again")
	}
	for _, to := range []driver.Destination{paid, settlement} {
		proxy.Set(hostile.Rates{Lost: 1})
		if got := verdicts(b.Publish(t.Context(), to, messages("a", "b"))); got != "again again" {
			t.Errorf("a lost answer at %s: %s", to, got)
		}
		proxy.Set(hostile.Rates{})
	}
}

// Without credentials nothing can be sent, which is no message's fault.
func TestMissingCredentialsAreTheDestinationsFault(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	check(t, open(t, url, pabalsns.Options{}), village)
	cfg := configuration(url)
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("the token has expired")
	})
	b, err := pabalsns.Open(cfg, &pabalsns.Options{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close() //nolint:errcheck // of a test
	if got := verdicts(b.Publish(t.Context(), settlement, messages("a"))); got != "again!" {
		t.Errorf("answered %s", got)
	}
}

// A call that is refused as a whole for its content is taken apart: one message must not keep its neighbours back.
func TestPoisonDoesNotKeepItsNeighboursBack(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{})
	bad := hostile.Refusal(true, http.StatusBadRequest, "InvalidParameter")
	proxy.Script("PublishBatch", bad, snsAnswer([]string{"0"}), bad, snsAnswer([]string{"0"}))
	if got := verdicts(b.Publish(t.Context(), paid, messages("a", "b", "c"))); got != "accepted never accepted" {
		t.Errorf("answered %s", got)
	}
}

// A topic's limit holds for the sum of a PublishBatch; what no queue would take is refused here, for SNS would accept it.
func TestSizesAndCharacters(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{})
	large := strings.Repeat("x", 60<<10)
	got := verdicts(b.Publish(t.Context(), paid, messages(large, large, large, large, large, large, large, large, large, large)))
	if want := strings.TrimSpace(strings.Repeat("accepted ", 10)); got != want {
		t.Errorf("ten messages of 60 KiB: %s", got)
	}
	if n := proxy.Calls()["PublishBatch"]; n != 3 {
		t.Errorf("600 KiB went in %d calls, not 3", n)
	}
	most := strings.Repeat("x", 256<<10)
	texts := []string{most, most + "x", "\t\n\r 한글 \U0001F44D\ud7ff\ue000\ufffd", "a\x00", "\x1f", "\ufffe", "\uffff", "\xff", "\xed\xa0\x80", ""}
	if got, want := verdicts(b.Publish(t.Context(), paid, messages(texts...))),
		"accepted never accepted never never never never never never never"; got != want {
		t.Errorf("answered %s, not %s", got, want)
	}
	many := messages("a")
	for i := range 11 {
		many[0].Attributes = append(many[0].Attributes, driver.Attribute{Name: fmt.Sprint("a", i), Value: "x"})
	}
	if got := verdicts(b.Publish(t.Context(), paid, many)); got != "never" {
		t.Errorf("eleven attributes: %s", got)
	}
}

// At a FIFO topic what follows a group's failed entry in the same call, and was not stored, is again, whoever's fault.
func TestWhatFollowsAFailedOneOfItsGroupIsAgain(t *testing.T) {
	b, proxy := stage(t, pabalsns.Options{FIFO: true})
	list := messages("a", "b", "c", "d", "e")
	for i, group := range []string{"1", "1", "2", "1", "1"} {
		list[i].Group = group
	}
	proxy.Script("PublishBatch", snsAnswer([]string{"0", "2", "4"}, "1 InternalError", "3 InvalidParameter sender"))
	if got := verdicts(b.Publish(t.Context(), paid, list)); got != "accepted again accepted again accepted" {
		t.Errorf("answered %s", got)
	}
	for i := range list {
		list[i].Body = []byte(strings.Repeat("x", 100<<10))
	}
	before := proxy.Calls()["PublishBatch"]
	proxy.Script("PublishBatch", snsAnswer([]string{"1"}, "0 InternalError")) // the next two calls are real
	if got := verdicts(b.Publish(t.Context(), paid, list)); got != "again accepted accepted again again" {
		t.Errorf("in several calls: %s", got)
	}
	if n := proxy.Calls()["PublishBatch"] - before; n != 2 {
		t.Errorf("%d calls", n)
	}
}

func TestIDsAreLegalAtFIFOTopics(t *testing.T) {
	id := uuid.New()
	for _, c := range []struct {
		key  string
		same bool
	}{
		{"A-1", true}, {"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", true}, {strings.Repeat("k", 128), true},
		{strings.Repeat("k", 129), false}, {"주문 1", false}, {"a b", false}, {"a\n", false},
	} {
		m := driver.Message{ID: id, Group: c.key, Dedup: c.key}
		for _, got := range []string{pabalsns.GroupOf(m), pabalsns.DedupOf(m)} {
			if (got == c.key) != c.same || len(got) > 128 || !c.same && len(got) != 64 {
				t.Errorf("%q becomes %q", c.key, got)
			}
		}
	}
	if got := pabalsns.GroupOf(driver.Message{ID: id}); got != id.String() {
		t.Errorf("a message without key has the group %q", got)
	}
}

// A FIFO queue takes a message of the same Dedup once, and one of the next claim again; the record queue is a standard one.
func TestFIFOQueueDeduplicatesByDedupOnly(t *testing.T) {
	b := open(t, servers.Fauxqs(t, false).URL, pabalsns.Options{FIFO: true, FIFOQueues: []string{"settlement"}})
	check(t, b, driver.Topology{
		Topics: village.Topics, Queues: append([]driver.QueueSpec{{Name: "event-record-order", Topics: []string{"paid"}}}, village.Queues...),
	})
	m := messages("a")
	m[0].Group = "주문 1"
	for _, dedup := range []string{"x/0", "x/0", "x/1"} {
		m[0].Dedup = dedup
		if got := verdicts(b.Publish(t.Context(), paid, m)); got != "accepted" {
			t.Fatal(got)
		}
	}
	for queue, want := range map[string]int{"settlement": 2, "event-record-order": 3} {
		n := 0
		for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
			got, err := b.Receive(t.Context(), queue, 10)
			if err != nil {
				t.Fatal(err)
			}
			if n += len(got); len(got) == 0 && n >= want {
				break
			}
			if err := b.Ack(t.Context(), queue, got); err != nil {
				t.Fatal(err)
			}
		}
		if n != want {
			t.Errorf("queue %s got %d messages, not %d", queue, n, want)
		}
	}
}
