package main

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/pabal-go/pabal"
	"github.com/pabal-go/pabal/pabalpgx"
)

// recording compares transactions that write an order: with no event, with one inserted by hand, with Pabal's. Nothing
// publishes meanwhile.
func (s *stand) recording(ctx context.Context, b *bench) (rows []row, err error) {
	for _, workers := range []int{1, 16} {
		r, err := s.recordingBy(ctx, b, workers)
		if rows = append(rows, r...); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

func (s *stand) recordingBy(ctx context.Context, b *bench, workers int) (rows []row, err error) {
	t, err := s.open(ctx, true, false, nil)
	if t != nil {
		defer t.close()
	}
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(t.pg.Database(t.name + "_order"))
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = pgConns
	plain, err := pgxpool.NewWithConfig(ctx, cfg) // not watched
	if err != nil {
		return nil, err
	}
	t.closes = append(t.closes, plain.Close)
	if _, err := plain.Exec(ctx, createOutboxPG); err != nil {
		return nil, err
	}
	p := &pabalSite{site: t}
	client, store, err := p.client(ctx, t.order, "order") // it does not run
	if err != nil {
		return nil, err
	}
	tx := func(pool *pgxpool.Pool, record func(ctx context.Context, tx pgx.Tx, n int64) error) *rival {
		return &rival{do: func(ctx context.Context, n int64) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, insertOrder, n); err != nil {
					return err
				}
				return record(ctx, tx, n)
			})
		}}
	}
	record := func(event pabal.Type[bill]) *rival {
		return tx(t.order, func(ctx context.Context, tx pgx.Tx, n int64) error {
			return client.Record(ctx, tx, event.New(billOf(int(n))))
		})
	}
	inTx := func(event pabal.Type[bill], rides bool) *rival {
		return &rival{do: func(ctx context.Context, n int64) error {
			return store.InTx(ctx, client, func(tx *pabalpgx.Tx) (err error) {
				tx.Record(event.New(billOf(int(n))))
				if rides {
					tx.Queue(insertOrder, n)
				} else {
					_, err = tx.Exec(ctx, insertOrder, n)
				}
				return err
			})
		}}
	}
	byHand := tx(plain, func(ctx context.Context, tx pgx.Tx, n int64) error {
		_, err := tx.Exec(ctx, insertOutboxPG, uuid.Must(uuid.NewV7()), "", payloadOf(int(n)))
		return err
	})
	byRows := func(c sameRows) *rival {
		return tx(plain, func(ctx context.Context, tx pgx.Tx, n int64) error {
			return c.record(ctx, tx, uuid.Must(uuid.NewV7()), payloadOf(int(n)), int(n))
		})
	}
	none := tx(plain, func(context.Context, pgx.Tx, int64) error { return nil })
	r := recorders{
		none: none, byHand: byHand, sameRows: byRows(sameRows{}), sameKeyed: byRows(sameRows{keyed: true}), loose: record(loosePaid),
		keyed: record(keyedPaid), in: inTx(loosePaid, false), inKeyed: inTx(keyedPaid, false), ride: inTx(loosePaid, true),
	}
	if err := b.inTurn(ctx, workers, byHand, none, r.sameRows, r.sameKeyed, r.loose, r.keyed, r.in, r.inKeyed, r.ride); err != nil {
		return nil, err
	}
	recorded := r.sameRows.done + r.sameKeyed.done + r.loose.done + r.keyed.done + r.in.done + r.inKeyed.done + r.ride.done
	if err := t.holds(ctx, 0, fmt.Sprintf(`select abs(%d - (select count(*) from pabal_event)) + abs(%d - (select count(*) from pabal_pending))
		+ abs(%d - (select count(*) from outbox)) + abs(%d - (select count(*) from orders))`,
		recorded, recorded, byHand.done, recorded+byHand.done+none.done)); err != nil {
		return nil, err
	}
	return r.rows(workers), nil
}

// recorders are the ways to place an order that are compared.
type recorders struct{ none, byHand, sameRows, sameKeyed, loose, keyed, in, inKeyed, ride *rival }

func (v recorders) rows(workers int) (rows []row) {
	to := func(r, other *rival) (ratios []float64) {
		for i := range r.ratios {
			ratios = append(ratios, r.ratios[i]/other.ratios[i])
		}
		return ratios
	}
	what := fmt.Sprintf("PostgreSQL: place an order, %d at a time: ", workers)
	for _, c := range []struct {
		what   string
		r, to  *rival
		target string
	}{
		{"the event inserted by hand, against none", v.byHand, v.none, ""},
		{"Record, against the event inserted by hand", v.loose, v.byHand, "≥ 0.95"},
		{"Pabal's rows inserted by hand, against the event inserted by hand", v.sameRows, v.byHand, ""},
		{"InTx, against the event inserted by hand", v.in, v.byHand, "≥ 1.10"},
		{"InTx, against no event at all", v.in, v.none, "≥ 0.82"},
		{"InTx that takes the order along, against the event inserted by hand", v.ride, v.byHand, "≥ 1.10"},
		{"InTx that takes the order along, against no event at all", v.ride, v.none, "≥ 0.82"},
		{"Record with keys, against without", v.keyed, v.loose, "≥ 0.85"},
		{"InTx with keys, against without", v.inKeyed, v.in, "≥ 0.85"},
		{"Pabal's rows inserted by hand, with keys, against without", v.sameKeyed, v.sameRows, ""},
	} {
		rows = append(rows, row{what + c.what, fmt.Sprintf("%.0f against %.0f transactions/s, ratio %s",
			median(c.r.rates), median(c.to.rates), spread(to(c.r, c.to), "%.2f")), c.target})
	}
	return rows
}
