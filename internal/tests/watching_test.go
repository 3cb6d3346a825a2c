package tests

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/pabal-go/pabal/internal/servers"
)

// alert is a rule of docs/alerts.yml.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t *testing.T) (list []alert) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string  `yaml:"name"`
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	d := yaml.NewDecoder(strings.NewReader(text(t, "docs/alerts.yml")))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		list = append(list, g.Rules...)
	}
	if len(list) < 5 {
		t.Fatalf("only %d alerts", len(list))
	}
	return list
}

// panel is one of docs/dashboard.json.
type panel struct {
	ID      int    `json:"id"`
	Title   string `json:"title"`
	Targets []struct {
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

func panels(t *testing.T) []panel {
	t.Helper()
	var board struct {
		Panels []panel `json:"panels"`
	}
	if err := json.Unmarshal([]byte(text(t, "docs/dashboard.json")), &board); err != nil {
		t.Fatal(err)
	}
	if len(board.Panels) < 5 {
		t.Fatalf("only %d panels", len(board.Panels))
	}
	return board.Panels
}

// TestAlertsAndPanelsAskForMetricsThatAreThere: every expression is PromQL, and each metric and label in it is one that a shop under
// traffic answers; each step and result is one that the core counts; each label in a text is one of the expression's answer.
func TestAlertsAndPanelsAskForMetricsThatAreThere(t *testing.T) {
	w := watched{t: t, metrics: metricsOfAShop(t), core: sources(t)}
	for name, labels := range metricsOfARelayOnSNS(t) { // what only such a broker has
		w.metrics[name] = append(w.metrics[name], labels...)
	}
	for _, a := range alerts(t) {
		answer := w.query(a.Alert, a.Expr)
		for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(fmt.Sprint(a.Annotations), -1) {
			if !slices.Contains(answer, m[1]) {
				t.Errorf("%s: its text has label %s, its expression answers %v", a.Alert, m[1], answer)
			}
		}
		if _, err := time.ParseDuration(a.For); a.For != "" && err != nil {
			t.Errorf("%s: for: %v", a.Alert, err)
		}
	}
	for i, p := range panels(t) {
		if p.ID != i+1 || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: id %d, %d targets", i+1, p.Title, p.ID, len(p.Targets))
		}
		for _, target := range p.Targets {
			answer := w.query(p.Title, target.Expr)
			for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if m[1] != "instance" && !slices.Contains(answer, m[1]) { // Prometheus itself adds instance
					t.Errorf("%s: its legend has label %s, its expression answers %v", p.Title, m[1], answer)
				}
			}
		}
	}
}

// TestEachAlertHasItsRunbook: docs/runbooks.md has the heading that an alert points to, and names the alerts that there are.
func TestEachAlertHasItsRunbook(t *testing.T) {
	page := text(t, "docs/runbooks.md")
	var anchors, names []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		heading := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		anchors = append(anchors, "runbooks.md#"+strings.ReplaceAll(heading, " ", "-"))
	}
	for _, a := range alerts(t) {
		names = append(names, a.Alert)
		if !slices.Contains(anchors, a.Annotations["runbook"]) {
			t.Errorf("%s: there is no %s", a.Alert, a.Annotations["runbook"])
		}
		if !strings.Contains(page, "| `"+a.Alert+"` |") {
			t.Errorf("%s is not in the table of docs/runbooks.md", a.Alert)
		}
		if a.Annotations["summary"] == "" || !slices.Contains([]string{"page", "ticket"}, a.Labels["severity"]) {
			t.Errorf("%s: summary %q, severity %q", a.Alert, a.Annotations["summary"], a.Labels["severity"])
		}
	}
	for _, name := range regexp.MustCompile("`(Pabal[A-Z][A-Za-z]+)`").FindAllStringSubmatch(page, -1) {
		if !slices.Contains(names, name[1]) {
			t.Errorf("docs/runbooks.md speaks of alert %s, which is not there", name[1])
		}
	}
	for _, link := range regexp.MustCompile(`\]\((#[^)]+)\)`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(anchors, "runbooks.md"+link[1]) {
			t.Errorf("docs/runbooks.md links to %s, which is not there", link[1])
		}
	}
}

// TestRunbooksQuoteLogLinesThatAreWritten: each line of the log that docs/runbooks.md quotes stands in the sources.
func TestRunbooksQuoteLogLinesThatAreWritten(t *testing.T) {
	code := sources(t)
	page := strings.ReplaceAll(text(t, "docs/runbooks.md"), "\n", " ")
	n := 0
	for _, lines := range regexp.MustCompile("[Ll]og lines? ((?:`[^`]+`(?:, before it |, | and )?)+)").FindAllStringSubmatch(page, -1) {
		for _, line := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(lines[1], -1) {
			n++
			if !strings.Contains(code, `"`+line[1]) {
				t.Errorf("nothing logs %q", line[1])
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d log lines found", n)
	}
}

// watched are metrics by their names, with the labels that any of their series has.
type watched struct {
	t       *testing.T
	metrics map[string][]string
	core    string
}

// query checks an expression and returns the labels that its answer may have.
func (w *watched) query(where, text string) (answer []string) {
	w.t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		w.t.Errorf("%s: %v", where, err)
		return nil
	}
	var there, grouping []string
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			there = append(there, w.selects(where, n)...)
		case *parser.AggregateExpr:
			grouping = append(grouping, n.Grouping...)
		}
		return nil
	})
	for _, label := range grouping {
		if !slices.Contains(there, label) {
			w.t.Errorf("%s: no metric in it has label %s", where, label)
		}
	}
	if len(grouping) > 0 {
		return grouping
	}
	return there
}

// selects checks a metric and what is asked of its labels, and returns those that it has.
func (w *watched) selects(where string, s *parser.VectorSelector) []string {
	has, known := w.metrics[s.Name]
	if !known {
		w.t.Errorf("%s: no process answers metric %s", where, s.Name)
	}
	for _, m := range s.LabelMatchers {
		if m.Name == model.MetricNameLabel {
			continue
		}
		if !slices.Contains(has, m.Name) {
			w.t.Errorf("%s: metric %s has no label %s", where, s.Name, m.Name)
		}
		for value := range strings.SplitSeq(m.Value, "|") {
			if strings.HasPrefix(m.Name, "pabal_") && !strings.Contains(w.core, `"`+value+`"`) {
				w.t.Errorf("%s: nothing counts %s %q", where, m.Name, value)
			}
		}
	}
	return has
}

// metricsOfAShop reads /metrics of a shop that has had a second of traffic.
func metricsOfAShop(t *testing.T) map[string][]string {
	t.Helper()
	binary, endpoints := buildBinary(t), freeAddress(t)
	p := &process{t: t, binary: binary, dir: t.TempDir(), address: freeAddress(t)}
	p.line = append(p.shop("--listen", p.address), "--http", endpoints)
	p.start()
	load := exec.CommandContext(t.Context(), binary, "shop", "--load", "20/s", "--for", "1s", "--target", "http://"+p.address)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("traffic: %v\n%s", err, out)
	}
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + endpoints + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // it is read
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	p.stop()
	return metricsIn(string(page))
}

// metricsIn are the metrics of a page, with the labels that any of their series has.
func metricsIn(page string) map[string][]string {
	metrics := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+)(\{.*\})? \S+$`).FindAllStringSubmatch(page, -1) {
		metrics[m[1]] = append(metrics[m[1]], "")
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(m[2], -1) {
			metrics[m[1]] = append(metrics[m[1]], label[1])
		}
	}
	return metrics
}

// metricsOfARelayOnSNS reads /metrics of a relay whose record queue has a dead letter, and a consumer's none.
func metricsOfARelayOnSNS(t *testing.T) map[string][]string {
	t.Helper()
	url := servers.Fauxqs(t, false).URL
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
	} {
		t.Setenv(name, value)
	}
	w := openWard(t)
	db := "sqlite:" + filepath.Join(t.TempDir(), "order.db")
	w.pabal("migrate", "--db", db)
	o := awsOwner{t, sns.NewFromConfig(awsConfiguration(url)), sqs.NewFromConfig(awsConfiguration(url))}
	o.createQueue("acme-event-record-order-dlq")
	o.send("acme-event-record-order-dlq", `{"not":"an event"}`)
	r := openRelay(t, w.binary, db, "sns:acme-")
	r.becomes(http.StatusOK, "ready")
	_, page := r.get("/metrics")
	for queue, messages := range map[string]string{"event-record-order": "1", "order": "0"} {
		line := `pabal_dead_letters{messaging_destination_name="` + queue + `",source="order"} ` + messages + "\n"
		if !strings.Contains(page, line) {
			t.Errorf("%q is not in\n%s", line, page)
		}
	}
	r.stop()
	return metricsIn(page)
}
