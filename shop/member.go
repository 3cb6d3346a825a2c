package shop

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/mail"
	"time"
)

// Member is a member as the member service keeps it.
type Member struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Email     string    `json:"email"`
	ChangedAt time.Time `json:"changedAt"`
}

// Profile is what a member may change.
type Profile struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

const nameMax, emailMax = 100, 254

// Members is the member service. All methods are safe for concurrent use.
type Members struct {
	base
}

// OpenMembers opens the member service on its database.
func OpenMembers(ctx context.Context, db *sql.DB, rec Recorder, o *Options) (*Members, error) {
	b, err := open(ctx, "member", db, rec, o)
	return &Members{b}, err
}

// ChangeProfile sets a member's profile; created says that there was no such member before. A profile that stays as it
// was is no event.
func (s *Members) ChangeProfile(ctx context.Context, id string, p Profile) (m *Member, created bool, err error) {
	if err := p.check(id); err != nil {
		return nil, false, err
	}
	old, err := s.Get(ctx, id)
	if err != nil && !isProblem(err) {
		return nil, false, err
	}
	m = &Member{ID: id, Name: p.Name, Email: p.Email, ChangedAt: now()}
	created = old == nil
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		var n int64
		var err error
		if created {
			n, err = s.exec(ctx, tx, "member_insert", id, p.Name, p.Email, m.ChangedAt.UnixMilli())
		} else {
			n, err = s.exec(ctx, tx, "member_update", p.Name, p.Email, m.ChangedAt.UnixMilli(), id, p.Name, p.Email)
		}
		if err != nil || n == 0 {
			return err
		}
		return s.rec.Record(ctx, tx, MemberProfileChanged.New(ProfileChanged{MemberID: id, Name: p.Name, Email: p.Email,
			ChangedAt: m.ChangedAt}))
	})
	if err != nil && created {
		if _, lost := s.Get(ctx, id); lost == nil { // another request was the first
			return s.ChangeProfile(ctx, id, p)
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("change profile of member %s: %w", id, err)
	}
	if old != nil && old.Name == p.Name && old.Email == p.Email {
		return old, false, nil
	}
	return m, created, nil
}

// Get answers a member.
func (s *Members) Get(ctx context.Context, id string) (*Member, error) {
	m := &Member{ID: id}
	var changed int64
	err := s.row(ctx, nil, "member_get", id).Scan(&m.Name, &m.Email, &changed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, refuse(notFound, "member %q", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read member %s: %w", id, err)
	}
	m.ChangedAt = fromMillis(changed)
	return m, nil
}

func (p *Profile) check(id string) error {
	var f findings
	f.id("id", id)
	f.unless(p.Name != "", "name", "is empty")
	f.text("name", p.Name, nameMax)
	f.text("email", p.Email, emailMax)
	a, err := mail.ParseAddress(p.Email)
	f.unless(err == nil && a.Address == p.Email, "email", "is not a mail address such as minji@example.com")
	return f.problem()
}
