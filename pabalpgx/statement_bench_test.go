package pabalpgx

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/pabal-go/pabal/driver"
)

// BenchmarkRecordStatement measures what a recording costs the database alone: processor time of the server's process for the
// statement, as it is, and with a key also without the lookups of what a restored backup and a forgotten counter leave behind.
// They take turns in one transaction each.
//
//	go test -run '^$' -bench RecordStatement -benchtime 60x ./pabalpgx
func BenchmarkRecordStatement(b *testing.B) {
	pool, base := migrated(b)
	c, err := pool.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Release()
	bare := strings.NewReplacer(firstPosition, "1::bigint", "m.generation", "0",
		" cross join {p}meta m left join {p}topic t on t.name = $2::text", "").Replace(sqlRecordOne)
	list := []struct {
		name, query string
		keyed       bool
	}{{"without key", sqlRecordOneLoose, false}, {"with key", sqlRecordOne, true}, {"with key, nothing looked up", bare, true}}
	const slice, keys = 500, 10_000
	payload := bytes.Repeat([]byte("x"), 512)
	used := make([]time.Duration, len(list))
	for round := range b.N + 1 {
		for k, one := range list {
			tx, err := c.Begin(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			before := processorTime(b, c.Conn())
			for i := range slice {
				e := driver.Event{ID: uuid.Must(uuid.NewV7()), Topic: "paid", Type: "order-paid", ContentType: "application/json", Payload: payload}
				if one.keyed {
					e.Key = "A" + strconv.Itoa((round*slice+i)*7919%keys)
				}
				_, args := recording(driver.Recording{Events: []driver.Event{e}, Lease: time.Second}, nil)
				if _, err := tx.Exec(b.Context(), base.text(one.query), args[1:]...); err != nil {
					b.Fatal(err)
				}
			}
			if round > 0 {
				used[k] += processorTime(b, c.Conn()) - before
			}
			if err := tx.Commit(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	for k, one := range list {
		b.ReportMetric(used[k].Seconds()*1e6/float64(b.N*slice), strings.ReplaceAll(one.name, " ", "-")+":server-µs")
	}
	b.ReportMetric(0, "ns/op") // of a round: says nothing
}

// processorTime is what the process of a connection has used, in steps of 10 ms (proc(5): utime and stime, in ticks).
func processorTime(b *testing.B, c *pgx.Conn) time.Duration {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(int(c.PgConn().PID())) + "/stat")
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
