// Command pabal runs the reference system, keeps a store's tables, publishes for services in other languages, and tells an
// operator how a store is and what mends it. It is wiring and flags; what it does lies in package pabal and its drivers.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// Exit codes: documented in docs/operations.md and by `pabal --help`.
const (
	exitFailed    = 1 // the command failed, or a reconciliation found differences
	exitUsage     = 2 // the command line or the configuration is wrong
	exitUnhealthy = 3 // status found troubles, or topology something that is wrong or to be done

	// Of doctor.
	exitEndangered = 1 // something endangers a promise
	exitUnseen     = 2 // something could not be looked at
)

type commands struct {
	Log  string `help:"Least level of log lines: debug, info, warn or error." default:"${log}" enum:"debug,info,warn,error" env:"PABAL_LOG"`
	JSON bool   `name:"json" help:"Print JSON; log lines too."`

	Shop       shopCommand       `cmd:"" help:"Run the reference system, whole or one role of it."`
	Migrate    migrateCommand    `cmd:"" help:"Create or update Pabal's tables in a database."`
	Relay      relayCommand      `cmd:"" help:"Republish, confirm and forget for a store, without an application in the process."`
	Status     statusCommand     `cmd:"" help:"Tell whether a store is healthy, what is late, held or parked, and what mends it."`
	Doctor     doctorCommand     `cmd:"" help:"Look for settings of databases and broker that endanger a promise, and tell what mends them."`
	Events     eventsCommand     `cmd:"" help:"List, show, follow, retry, skip and redeliver what a store has recorded."`
	Inbox      inboxCommand      `cmd:"" help:"List, retry and skip what consumers hold and have parked."`
	Restored   restoredCommand   `cmd:"" help:"Tell a store that its database lost commits (a restored backup, a failover)."`
	Topology   topologyCommand   `cmd:"" help:"Plan, make, print and verify what a broker needs; bring dead letters back."`
	Completion completionCommand `cmd:"" help:"Print the script by which a shell completes commands and flags."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
}

// app is what commands share.
type app struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
	log    *slog.Logger
	json   bool
}

// exit is an error with an exit code; without text nothing more is printed.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exit{exitUsage, fmt.Errorf(format, args...)}
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := untilInterrupted()
	defer stop()
	var c commands
	parser, err := kong.New(&c, kong.Name("pabal"), kong.Vars{"log": "warn", "brokers": brokerForms(), "databases": databaseForms()}, kong.UsageOnError(),
		kong.Description("Publish events from your database transactions, and know that they arrived.\n\n"+
			"Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 status or topology found something that is wrong "+
			"or to be done. doctor has codes of its own."))
	if err != nil {
		fmt.Fprintln(os.Stderr, "pabal:", err)
		return exitUsage
	}
	if completed(parser) {
		return 0
	}
	k, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pabal:", err)
		return exitUsage
	}
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log)) // kong has checked it
	var lines slog.Handler = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	if c.JSON {
		lines = slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	}
	a := &app{ctx: ctx, stdout: os.Stdout, stderr: os.Stderr, json: c.JSON, log: slog.New(lines)}
	err = k.Run(a)
	var e *exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		if e.err != nil {
			fmt.Fprintln(os.Stderr, "pabal:", err) // with what is wrapped around e
		}
		return e.code
	default:
		fmt.Fprintln(os.Stderr, "pabal:", failure(ctx, err))
		return exitFailed
	}
}

// oneInterrupt is how long interrupts count as one: who supervises a process often passes on what a terminal has sent it already.
const oneInterrupt = time.Second

// untilInterrupted is a context that the first interrupt ends. A later one ends the process.
func untilInterrupted() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() { time.AfterFunc(oneInterrupt, stop) })
	return ctx, stop
}

// failure is what an error says, without what an interrupt has cut off.
func failure(ctx context.Context, err error) string {
	lines := strings.Split(err.Error(), "\n")
	if ctx.Err() != nil {
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasSuffix(line, context.Canceled.Error()) })
	}
	return cmp.Or(strings.Join(lines, "\n"), "interrupted")
}

type versionCommand struct{}

func (versionCommand) Run(a *app) error {
	version := "(development)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	return a.said(map[string]string{"version": version}, "pabal %s", version)
}
