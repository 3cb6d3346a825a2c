package main

import (
	"context"
	"database/sql"

	"github.com/pabal-go/pabal"
)

// Renamed carries the state that the event has made.
type Renamed struct {
	MemberID string `json:"memberId"`
	Name     string `json:"name"`
}

// Changed says only what it is about.
type Changed struct {
	MemberID string `json:"memberId"`
}

// One fact, told in two ways; in earnest a service has one of them.
var (
	MemberRenamed = pabal.Define("member-renamed", pabal.Key(func(r Renamed) string { return r.MemberID }))
	MemberChanged = pabal.Define("member-changed", pabal.Key(func(c Changed) string { return c.MemberID }))
)

func stateOrIDs(ctx context.Context, s *street) error {
	member, err := s.open(ctx, "member", "create table member (id text primary key, name text not null)")
	if err != nil {
		return err
	}
	mail, err := s.open(ctx, "mail", `
		create table greeting (name text not null);
		create table question (event_id text primary key, member_id text not null, answer text)`)
	if err != nil {
		return err
	}
	pabal.Handle(mail.Consumer("with-state", nil), MemberRenamed,
		func(ctx context.Context, tx *sql.Tx, e pabal.Received[Renamed]) error {
			_, err := tx.ExecContext(ctx, "insert into greeting values (?)", e.Data.Name)
			return err
		})
	pabal.Handle(mail.Consumer("with-ids", nil), MemberChanged,
		func(ctx context.Context, tx *sql.Tx, e pabal.Received[Changed]) error {
			_, err := tx.ExecContext(ctx, "insert into question (event_id, member_id) values (?, ?)", e.ID.String(), e.Data.MemberID)
			return err // it is asked after commit, as any call
		})
	if err := s.start(ctx, mail, member); err != nil {
		return err
	}

	for _, name := range []string{"Kim", "Lee"} {
		tx, err := member.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
		if _, err := tx.ExecContext(ctx, "insert into member values ('m1', ?) on conflict do update set name = excluded.name", name); err != nil {
			return err
		}
		if err := member.Record(ctx, tx, MemberRenamed.New(Renamed{"m1", name}), MemberChanged.New(Changed{"m1"})); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	if err := mail.until(ctx, "2", "select count(*) from question"); err != nil {
		return err
	}
	name, err := member.text(ctx, "select name from member where id = 'm1'") // a call of the member service, in earnest
	if err != nil {
		return err
	}
	if _, err := mail.db.ExecContext(ctx, "update question set answer = ?", name); err != nil {
		return err
	}
	if err := mail.until(ctx, "Kim,Lee", "select group_concat(name) from (select name from greeting order by rowid)"); err != nil {
		return err
	}
	answers, err := mail.text(ctx, "select group_concat(answer) from question")
	if err != nil {
		return err
	}
	s.say("with state: Kim,Lee")
	s.say("with ids:   %s", answers)
	return nil
}
