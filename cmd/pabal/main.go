// Command pabal runs the reference system, keeps a store's tables, publishes for services in other languages, and tells an
// operator how a store is and what mends it. It is wiring and flags; what it does lies in package pabal and its drivers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
)

// Exit codes: documented in docs/operations.md and by `pabal --help`.
const (
	exitFailed    = 1 // the command failed, or a reconciliation found differences
	exitUsage     = 2 // the command line or the configuration is wrong
	exitUnhealthy = 3 // status found troubles
)

type commands struct {
	Log string `help:"Least level of log lines: debug, info, warn or error." default:"${log}" enum:"debug,info,warn,error" env:"PABAL_LOG"`

	Shop      shopCommand      `cmd:"" help:"Run the reference system, whole or one role of it."`
	Migrate   migrateCommand   `cmd:"" help:"Create or update Pabal's tables in a database."`
	Relay     relayCommand     `cmd:"" help:"Republish, confirm and forget for a store, without an application in the process."`
	Status    statusCommand    `cmd:"" help:"Tell whether a store is healthy, what is late, held or parked, and what mends it."`
	Retry     retryCommand     `cmd:"" help:"Publish events again now; with --consumer, have it handle them again."`
	Skip      skipCommand      `cmd:"" help:"Have events delivered as a skip; with --consumer, have it pass over them."`
	Redeliver redeliverCommand `cmd:"" help:"Send recorded events once more."`
	Restored  restoredCommand  `cmd:"" help:"Tell a store that its database lost commits (a restored backup, a failover)."`
	Topology  topologyCommand  `cmd:"" help:"Plan, make, print and verify what a broker needs; bring dead letters back."`
	Version   versionCommand   `cmd:"" help:"Print the version."`
}

// app is what commands share.
type app struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
	log    *slog.Logger
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c commands
	parser, err := kong.New(&c, kong.Name("pabal"), kong.Vars{"log": "warn", "brokers": brokerForms(), "databases": databaseForms()}, kong.UsageOnError(),
		kong.Description("Publish events from your database transactions, and know that they arrived.\n\n"+
			"Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 status found troubles."))
	if err != nil {
		fmt.Fprintln(os.Stderr, "pabal:", err)
		return exitUsage
	}
	k, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pabal:", err)
		return exitUsage
	}
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log)) // kong has checked it
	a := &app{ctx: ctx, stdout: os.Stdout, stderr: os.Stderr,
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))}
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
		fmt.Fprintln(os.Stderr, "pabal:", err)
		return exitFailed
	}
}

type versionCommand struct{}

func (versionCommand) Run(a *app) error {
	version := "(development)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		version = info.Main.Version
	}
	_, err := fmt.Fprintln(a.stdout, "pabal", version)
	return err
}
