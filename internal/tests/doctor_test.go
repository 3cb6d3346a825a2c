package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pabal-go/pabal/doctor"
	"github.com/pabal-go/pabal/driver"
	"github.com/pabal-go/pabal/internal/servers"
)

// ward is where `pabal doctor` looks, as a pipeline has it look.
type ward struct {
	t      *testing.T
	binary string
	env    []string
	args   []string
}

func openWard(t *testing.T, args ...string) *ward {
	return &ward{t: t, binary: buildBinary(t), args: args}
}

// pabal runs a command that succeeds.
func (w *ward) pabal(args ...string) {
	w.t.Helper()
	c := exec.CommandContext(w.t.Context(), w.binary, args...)
	c.Env = append(os.Environ(), w.env...)
	if out, err := c.CombinedOutput(); err != nil {
		w.t.Fatalf("pabal %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (w *ward) examine() (r doctor.Report, code int) {
	w.t.Helper()
	c := exec.CommandContext(w.t.Context(), w.binary, append([]string{"doctor", "--json"}, w.args...)...)
	c.Env = append(os.Environ(), w.env...)
	out, err := c.Output()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		w.t.Fatalf("%v: %s, %v", err, out, exited)
	}
	return r, c.ProcessState.ExitCode()
}

// well: nothing is found that endangers a promise.
func (w *ward) well() {
	w.t.Helper()
	if r, code := w.examine(); code != 0 || r.Endangered() || len(r.Unseen) > 0 {
		w.t.Fatalf("exit code %d: %+v", code, r)
	}
}

// finds: of what endangers a promise there is just this.
func (w *ward) finds(severity driver.Severity, promise, what string) doctor.Finding {
	w.t.Helper()
	r, code := w.examine()
	found := slices.DeleteFunc(r.Findings, func(f doctor.Finding) bool { return f.Severity == driver.Note })
	if code != 1 || len(found) != 1 || found[0].Severity != severity || found[0].Promise != promise || !strings.Contains(found[0].What, what) {
		w.t.Errorf("want %s, %s, %q; exit code %d: %+v", severity, promise, what, code, r)
		return doctor.Finding{}
	}
	return found[0]
}

// notes: among the notes is this, and nothing endangers a promise.
func (w *ward) notes(what string) doctor.Finding {
	w.t.Helper()
	r, code := w.examine()
	at := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return strings.Contains(f.What, what) })
	if code != 0 || at < 0 {
		w.t.Errorf("want %q; exit code %d: %+v", what, code, r)
		return doctor.Finding{}
	}
	return r.Findings[at]
}

func (w *ward) notesNo(what string) {
	w.t.Helper()
	if r, _ := w.examine(); strings.Contains(fmt.Sprint(r.Findings), what) {
		w.t.Errorf("%+v", r)
	}
}

// statements of a finding's mend, without what explains them.
func statements(mend string) (list []string) {
	mend, _, _ = strings.Cut(mend, " #")
	for s := range strings.SplitSeq(mend, ";") {
		if s = strings.TrimSpace(s); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// execute runs statements one by one, each in a transaction of its own.
func execute(t *testing.T, url string, list ...string) {
	t.Helper()
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background()) //nolint:errcheck // the statements' errors tell
	for _, s := range list {
		if _, err := db.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// TestDoctorFindsWhatEndangersPostgres: each setting by itself is found, and what the finding says mends it.
func TestDoctorFindsWhatEndangersPostgres(t *testing.T) {
	server := servers.Postgres(t, "fsync=on")
	w := openWard(t, "--db", server.URL)
	w.pabal("migrate", "--db", server.URL)
	w.well()
	do := func(list ...string) {
		t.Helper()
		execute(t, server.URL, list...)
	}
	shows := func(name, value string) {
		t.Helper()
		until(t, name+" is "+value, func() bool { return slices.Equal(query(t, server.URL, "show "+name), []string{value}) })
	}
	for _, c := range []struct{ setting, bad, what string }{
		{"full_page_writes", "off", "full_page_writes is off"},
		{"synchronous_commit", "off", "synchronous_commit is off"},
	} {
		do("alter system set "+c.setting+" = "+c.bad, "select pg_reload_conf()")
		shows(c.setting, c.bad)
		do(statements(w.finds(driver.AtRisk, "P1, P4", c.what).Mend)...)
		shows(c.setting, "on")
		w.well()
	}

	const locked = "idle_in_transaction_session_timeout is 0"
	do(statements(w.notes(locked).Mend)...)
	shows("idle_in_transaction_session_timeout", "1min")
	w.notesNo(locked)
	do("create role app login", "alter role app set synchronous_commit = off")
	do(statements(w.finds(driver.AtRisk, "P1, P4", "for role app synchronous_commit is off").Mend)...)
	w.well()
	do("alter table pabal_pending set unlogged")
	do(statements(w.finds(driver.AtRisk, "P1, P4", "table pabal_pending is unlogged").Mend)...)
	w.well()

	drop := `do $$ declare part text; begin
		for part in select relname from pg_class where relname ~ '^pabal_event_[0-9]{8}$' and right(relname, 8) >= to_char(now() at time zone 'UTC' + interval '%d days', 'YYYYMMDD')
		loop execute 'drop table ' || part; end loop; end $$`
	do(fmt.Sprintf(drop, 5))
	w.finds(driver.AtRisk, "P1", "partitions are missing: the last one is of 2")
	do(fmt.Sprintf(drop, 0))
	if f := w.finds(driver.AtRisk, "P1", "today has no partition"); strings.HasSuffix(f.Mend, "at once: select pabal_ahead(14);") {
		do("select pabal_ahead(14)")
	}
	w.well()

	standby, err := pgconn.Connect(t.Context(), server.URL+"&replication=true")
	if err != nil {
		t.Fatal(err)
	}
	w.notes("1 standbys replicate asynchronously")
	if err := standby.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	do("alter system set synchronous_standby_names = 'nobody'", "alter system set synchronous_commit = local", "select pg_reload_conf()")
	shows("synchronous_commit", "local")
	w.finds(driver.AtRisk, "P1, P4", "synchronous_commit is local although there are synchronous standbys")
	do("alter system reset all", "select pg_reload_conf()")
	shows("synchronous_standby_names", "")

	careless := servers.Postgres(t, "fsync=off").URL
	w.args = []string{"--db", careless}
	w.pabal("migrate", "--db", careless)
	w.finds(driver.AtRisk, "P1, P4", "fsync is off")
}

// TestDoctorOnlyReadsPostgres: a role that may select and nothing else is enough, and the source stays as it is.
func TestDoctorOnlyReadsPostgres(t *testing.T) {
	server := servers.Postgres(t, "fsync=on")
	w := openWard(t, "--db", strings.Replace(server.URL, "postgres://postgres@", "postgres://looker@", 1))
	w.pabal("migrate", "--db", server.URL)
	execute(t, server.URL, "create role looker login", "grant select on all tables in schema public to looker",
		"alter role looker set default_transaction_read_only = on")
	w.well()
	if source := query(t, server.URL, "select source from pabal_meta"); !slices.Equal(source, []string{""}) {
		t.Errorf("the source is %q", source)
	}
}

// TestDoctorFindsWhatEndangersMariaDB: as for PostgreSQL.
func TestDoctorFindsWhatEndangersMariaDB(t *testing.T) {
	server := servers.KillableMariaDB(t, nil)
	server.Admin(t, "create database shop")
	server.Admin(t, "create database other")
	w := openWard(t, "--db", server.URL("shop"))
	w.pabal("migrate", "--db", server.URL("shop"))
	w.well()
	for _, c := range []struct {
		bad, what string
		severity  driver.Severity
		promise   string
	}{
		{"set global innodb_flush_log_at_trx_commit = 2", "innodb_flush_log_at_trx_commit is 2", driver.AtRisk, "P1, P4"},
		{"set global sync_binlog = 0", "sync_binlog is 0", driver.AtRisk, "P1, P4"},
		{"alter table shop.pabal_redelivery engine = MyISAM", "table pabal_redelivery is of engine MyISAM", driver.Broken, "P2, P4"},
	} {
		server.Admin(t, c.bad)
		for _, s := range statements(w.finds(c.severity, c.promise, c.what).Mend) {
			server.Admin(t, strings.Replace(s, "alter table ", "alter table shop.", 1))
		}
		w.well()
	}
	const locked = "idle_transaction_timeout is 0"
	for _, s := range statements(w.notes(locked).Mend) {
		server.Admin(t, s)
	}
	w.notesNo(locked)
}

// TestDoctorFindsWhatEndangersSNS: what an owner may have done to topics, queues and subscriptions, on a server of SNS and SQS.
func TestDoctorFindsWhatEndangersSNS(t *testing.T) {
	url := servers.Fauxqs(t, false).URL
	dir := t.TempDir()
	db, file := "sqlite:"+filepath.Join(dir, "order.db"), filepath.Join(dir, "topology.json")
	w := openWard(t, "--db", db, "--broker", "sns:acme-")
	w.env = []string{"AWS_ENDPOINT_URL=" + url, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x"}
	w.pabal("migrate", "--db", db)
	store := openDatabase(t, filepath.Join(dir, "order.db"))
	for _, s := range []string{"update pabal_meta set source = 'order'", "insert into pabal_topic (name, ordered, proven_at) values ('paid', 0, 1)",
		"insert into pabal_consumer (consumer, source, topic, joined_at) values ('settlement', 'order', 'paid', 1)"} {
		if _, err := store.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	r, code := w.examine()
	if all := fmt.Sprint(r.Findings); code != 1 || !strings.Contains(all, "queue event-record-order is missing") ||
		!strings.Contains(all, "subscription of queue settlement to topic paid is missing") {
		t.Errorf("nothing is there: %d, %+v", code, r)
	}
	if err := os.WriteFile(file, []byte(`{"topics":[{"name":"paid"}],"queues":[{"name":"event-record-order","topics":["paid"]},{"name":"settlement","topics":["paid"]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	apply := func() { w.pabal("topology", "apply", "--broker", "sns:acme-", "--file", file) }
	apply()
	w.well()

	o := awsOwner{t, sns.NewFromConfig(awsConfiguration(url)), sqs.NewFromConfig(awsConfiguration(url))}
	sub := o.subscription("acme-paid", "acme-settlement")
	for _, c := range []struct {
		name, value, what string
		severity          driver.Severity
		promise           string
	}{
		{"FilterPolicy", `{"type":["paid"]}`, "has the filter policy", driver.Broken, "P1, P5"},
		{"RawMessageDelivery", "false", "RawMessageDelivery of subscription of queue settlement to topic paid is false, not true", driver.Broken, "P1"},
	} {
		o.setSubscription(sub, c.name, c.value)
		if f := w.finds(c.severity, c.promise, c.what); c.name == "FilterPolicy" && !strings.Contains(f.Mend, sub) {
			t.Errorf("mend: %s", f.Mend)
		}
		o.setSubscription(sub, c.name, map[string]string{"FilterPolicy": "{}", "RawMessageDelivery": "true"}[c.name])
		w.well()
	}
	queue := o.queue("acme-settlement")
	for _, c := range []struct {
		name, bad, good, what string
		severity              driver.Severity
		promise               string
	}{
		{"RedrivePolicy", `{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:acme-settlement-dlq","maxReceiveCount":3}`,
			`{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:000000000000:acme-settlement-dlq","maxReceiveCount":100}`,
			"RedrivePolicy of queue settlement is", driver.AtRisk, "P1"},
		{"DelaySeconds", "5", "0", "queue settlement delays every message by 5s", driver.AtRisk, "P3"},
		{"MessageRetentionPeriod", "1209600", "864000", "keeps messages no longer than its queue", driver.AtRisk, "P1"},
		{"MessageRetentionPeriod", "3600", "864000", "MessageRetentionPeriod of queue settlement is 3600, not 864000", driver.AtRisk, "P1"},
	} {
		o.setQueue(queue, c.name, c.bad)
		w.finds(c.severity, c.promise, c.what)
		o.setQueue(queue, c.name, c.good)
		w.well()
	}
	for _, name := range []string{"acme-settlement-dlq", "acme-order"} { // one that the store tells of, one of which it does not
		if name == "acme-order" {
			o.createQueue(name + "-dlq")
			name += "-dlq"
		}
		o.send(name, `{"not":"an event"}`)
		w.finds(driver.Broken, "P1, P5", "about 1 messages")
		o.purge(name)
		w.well()
	}
	w.args = append(w.args, "--broker", "sns:acme-?hold=5s")
	w.notes("a received message is ours for 5s only")
	w.args = []string{"--db", db, "--broker", "sns:acme-"}
	o.unsubscribe(sub)
	w.finds(driver.Broken, "P1", "subscription of queue settlement to topic paid is missing")
	apply()
	w.well()
}

// awsOwner does what the owner of an account may.
type awsOwner struct {
	t   *testing.T
	sns *sns.Client
	sqs *sqs.Client
}

func (o awsOwner) ok(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o awsOwner) ctx() context.Context { return o.t.Context() }

func (o awsOwner) subscription(topic, queue string) string {
	o.t.Helper()
	list, err := o.sns.ListSubscriptionsByTopic(o.ctx(), &sns.ListSubscriptionsByTopicInput{TopicArn: aws.String("arn:aws:sns:us-east-1:000000000000:" + topic)})
	o.ok(err)
	for _, s := range list.Subscriptions {
		if strings.HasSuffix(aws.ToString(s.Endpoint), ":"+queue) {
			return aws.ToString(s.SubscriptionArn)
		}
	}
	o.t.Fatalf("queue %s is not subscribed to %s", queue, topic)
	return ""
}

func (o awsOwner) setSubscription(arn, name, value string) {
	o.t.Helper()
	_, err := o.sns.SetSubscriptionAttributes(o.ctx(), &sns.SetSubscriptionAttributesInput{SubscriptionArn: &arn, AttributeName: &name, AttributeValue: &value})
	o.ok(err)
}

func (o awsOwner) unsubscribe(arn string) {
	o.t.Helper()
	_, err := o.sns.Unsubscribe(o.ctx(), &sns.UnsubscribeInput{SubscriptionArn: &arn})
	o.ok(err)
}

func (o awsOwner) createQueue(name string) {
	o.t.Helper()
	_, err := o.sqs.CreateQueue(o.ctx(), &sqs.CreateQueueInput{QueueName: &name})
	o.ok(err)
}

func (o awsOwner) queue(name string) string {
	o.t.Helper()
	out, err := o.sqs.GetQueueUrl(o.ctx(), &sqs.GetQueueUrlInput{QueueName: &name})
	o.ok(err)
	return *out.QueueUrl
}

func (o awsOwner) setQueue(url, name, value string) {
	o.t.Helper()
	_, err := o.sqs.SetQueueAttributes(o.ctx(), &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{name: value}})
	o.ok(err)
}

func (o awsOwner) send(queue, body string) {
	o.t.Helper()
	_, err := o.sqs.SendMessage(o.ctx(), &sqs.SendMessageInput{QueueUrl: aws.String(o.queue(queue)), MessageBody: &body})
	o.ok(err)
}

func (o awsOwner) purge(queue string) {
	o.t.Helper()
	_, err := o.sqs.PurgeQueue(o.ctx(), &sqs.PurgeQueueInput{QueueUrl: aws.String(o.queue(queue))})
	o.ok(err)
}
