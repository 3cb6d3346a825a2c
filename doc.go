// Package pabal publishes events from database transactions and knows that they arrived.
//
// Pabal (파발) was the courier relay of Joseon Korea: every station signed for the letter before it rode on. Here an event
// is recorded in the transaction that makes it true, published right after COMMIT, copied by the broker to every
// subscribed queue, and confirmed when it comes back through one of them. What does not come back is published again.
//
//	client.Record   the event is a row of the caller's transaction: both or neither
//	publish.go      after COMMIT, never before, never on rollback, without anyone polling
//	confirm.go      it came back from the broker: published
//	republish.go    it did not, and is due: once more
//	consume.go      every consumer has an inbox in its own database: one effect, in order, gaps noticed
//
// Stages meet only in the database; no stage calls back into an earlier one.
//
// # Promises
//
// They hold as long as the database keeps what it acknowledged; "in the end" means once the faults stop.
//
//   - P1 no loss: every committed event is confirmed, or parked for a reason of its own, in the end.
//   - P2 no ghost: nothing is published before the database has answered COMMIT, and nothing that rolled back, ever.
//   - P3 no coupling, no storm: a broker that is down, slow or hostile neither fails nor delays a recording transaction;
//     memory stays bounded; an outage does not end in a flood of copies.
//   - P4 one effect: inbox row, cursor and the handler's writes commit together, once per event and consumer.
//   - P5 order: a consumer of a keyed type sees the events of a key in the order of their commits, over any broker.
//   - P6 no silence: what is lost, late, parked, held or forked is visible, with the command that mends it.
//   - P7 no theft: retention never removes an event that is not confirmed, and never makes a position repeat.
//
// Not promised: exactly-once calls to systems outside the consumer's database (pass them the event id as idempotency
// key), order across keys, that one particular consumer has handled an event, and anything about commits that the
// database acknowledged and lost.
//
// # Reading order
//
// event.go, client.go, record.go, wire.go with decode.go and bare.go, publish.go with doubtful.go, pace.go and verdicts.go,
// confirm.go, republish.go,
// consume.go with join.go and acknowledge.go, handle.go, inbox.go with plan.go and place.go (the rules), operate.go,
// redeliver.go, retain.go; then package driver. Calls go down that list. Decisions are pure functions; work is straight-line
// code in tasks that meet time, chance and concurrency only through internal/world, so that internal/sim can run all of it
// under every fault, from a seed.
package pabal
