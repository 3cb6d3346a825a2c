package pabalsql

import (
	"database/sql"
	sqldriver "database/sql/driver"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	sqlitedriver "modernc.org/sqlite"

	"github.com/pabal-go/pabal/internal/servers"
)

// What Watch keeps of the driver that it wraps.

// optional are the interfaces that database/sql looks for.
var optional = []reflect.Type{
	reflect.TypeFor[sqldriver.Pinger](), reflect.TypeFor[sqldriver.ExecerContext](), reflect.TypeFor[sqldriver.QueryerContext](),
	reflect.TypeFor[sqldriver.ConnPrepareContext](), reflect.TypeFor[sqldriver.ConnBeginTx](), reflect.TypeFor[sqldriver.SessionResetter](),
	reflect.TypeFor[sqldriver.Validator](), reflect.TypeFor[sqldriver.NamedValueChecker](), reflect.TypeFor[sqldriver.ColumnConverter](), //nolint:staticcheck // drivers still have it
	reflect.TypeFor[sqldriver.StmtExecContext](), reflect.TypeFor[sqldriver.StmtQueryContext](),
	reflect.TypeFor[sqldriver.RowsNextResultSet](), reflect.TypeFor[sqldriver.RowsColumnTypeScanType](),
	reflect.TypeFor[sqldriver.RowsColumnTypeDatabaseTypeName](), reflect.TypeFor[sqldriver.RowsColumnTypeLength](),
	reflect.TypeFor[sqldriver.RowsColumnTypeNullable](), reflect.TypeFor[sqldriver.RowsColumnTypePrecisionScale](),
	reflect.TypeFor[io.Closer](),
}

func TestWatchKeepsEveryOptionalInterface(t *testing.T) {
	lite, err := sqlitedriver.NewConnector("file:" + filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := mysqldriver.ParseDSN(servers.StartMariaDB(t, &servers.MariaDBOptions{Volatile: true}).Database(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	my, err := mysqldriver.NewConnector(config)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		sqldriver.Connector
		least int
	}{"SQLite": {lite, 10}, "MariaDB": {my, 16}} {
		t.Run(name, func(t *testing.T) { keepsInterfaces(t, c.Connector, c.least) })
	}
}

// keepsInterfaces compares what a driver's parts implement with what the watched ones do: at least so many interfaces.
func keepsInterfaces(t *testing.T, inner sqldriver.Connector, least int) {
	type parts struct{ connector, conn, stmt, rows, tx any }
	open := func(c sqldriver.Connector) (p parts) {
		conn, err := c.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		stmt, err := conn.Prepare("select 1 as n")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stmt.Close() })
		rows, err := stmt.(sqldriver.StmtQueryContext).QueryContext(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		tx, err := conn.(sqldriver.ConnBeginTx).BeginTx(t.Context(), sqldriver.TxOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = tx.Rollback() })
		return parts{c, conn, stmt, rows, tx}
	}
	is, wrapped := open(inner), open(Watch(inner))
	kept := 0
	for name, pair := range map[string][2]any{
		"connector": {is.connector, wrapped.connector}, "connection": {is.conn, wrapped.conn}, "statement": {is.stmt, wrapped.stmt},
		"rows": {is.rows, wrapped.rows}, "transaction": {is.tx, wrapped.tx},
	} {
		for _, i := range optional {
			if reflect.TypeOf(pair[0]).Implements(i) {
				kept++
				if !reflect.TypeOf(pair[1]).Implements(i) {
					t.Errorf("the watched %s is no %v", name, i)
				}
			}
		}
	}
	if kept < least {
		t.Errorf("only %d interfaces were compared", kept)
	}
	if Watch(inner).Driver() != inner.Driver() {
		t.Error("the driver is another one")
	}
}

// named converts as an application's types do.
type named int64

type valuer struct{ text string }

func (v valuer) Value() (sqldriver.Value, error) { return "valued " + v.text, nil }

// A watched pool takes and answers the same values as the same pool unwatched.
func TestWatchKeepsArgumentsAndResults(t *testing.T) {
	text, none := "pointed at", (*string)(nil)
	id := uuid.MustParse("018f0000-0000-7000-8000-000000000001")
	arguments := map[string]any{
		"int": 7, "int64": int64(7), "uint8": uint8(7), "uint64": uint64(7), "named": named(7), "bool": true, "float32": float32(0.5),
		"float64": 0.5, "string": "x", "bytes": []byte{0, 1}, "nil bytes": []byte(nil), "nil": nil, "pointer": &text, "nil pointer": none,
		"valuer": valuer{"x"}, "uuid": id, "time": time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		"null string": sql.NullString{}, "null int": sql.NullInt64{Int64: 7, Valid: true}, "named argument": sql.Named("p1", 7),
		"raw": sql.RawBytes{1}, "too large": uint64(1) << 63, "struct": struct{ N int }{7}, "channel": make(chan int),
	}
	open := func(watch func(sqldriver.Connector) sqldriver.Connector) *sql.DB {
		c, err := sqlitedriver.NewConnector("file:" + filepath.Join(t.TempDir(), "test.db"))
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(watch(c))
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	plain := open(func(c sqldriver.Connector) sqldriver.Connector { return c })
	watched := open(Watch)
	ways := map[string]func(db *sql.DB, argument any) string{
		"direct": func(db *sql.DB, argument any) string {
			return answer(db.QueryRow("select ?, typeof(?1)", argument))
		},
		"prepared": func(db *sql.DB, argument any) string {
			stmt, err := db.Prepare("select ?, typeof(?1)")
			if err != nil {
				return err.Error()
			}
			defer stmt.Close() //nolint:errcheck // of a test
			return answer(stmt.QueryRow(argument))
		},
		"too many": func(db *sql.DB, argument any) string {
			stmt, err := db.Prepare("select 1, typeof(1)")
			if err != nil {
				return err.Error()
			}
			defer stmt.Close() //nolint:errcheck // of a test
			return answer(stmt.QueryRow(argument))
		},
	}
	for name, argument := range arguments {
		for way, ask := range ways {
			if is, want := ask(watched, argument), ask(plain, argument); is != want {
				t.Errorf("%s, %s: watched %s, plain %s", name, way, is, want)
			}
		}
	}
	columns := func(db *sql.DB) string {
		rows, err := db.Query("select cast(1 as integer) as n, 'x' as text")
		if err != nil {
			return err.Error()
		}
		defer rows.Close() //nolint:errcheck // of a test
		types, err := rows.ColumnTypes()
		var all []string
		for _, c := range types {
			length, sized := c.Length()
			nullable, known := c.Nullable()
			precision, scale, decimal := c.DecimalSize()
			all = append(all, fmt.Sprint(c.Name(), c.DatabaseTypeName(), c.ScanType(), length, sized, nullable, known,
				precision, scale, decimal))
		}
		return fmt.Sprint(all, err)
	}
	if is, want := columns(watched), columns(plain); is != want {
		t.Errorf("columns: watched %s, plain %s", is, want)
	}
}

func answer(row *sql.Row) string {
	var value any
	var kind string
	if err := row.Scan(&value, &kind); err != nil {
		return "error: " + err.Error()
	}
	return fmt.Sprintf("%T %v, %s", value, value, kind)
}
