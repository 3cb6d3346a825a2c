// Package shop is Pabal's reference system: a small market place of five services that know each other by events only.
//
//	order         takes orders, payments and cancellations
//	member        keeps profiles
//	product       keeps prices, stock and the members who wait for a restock
//	notification  tells members what happened, by log, webhook or mail
//	settlement    books every paid order for its seller, once, and takes it back when the order is cancelled
//
// Each has a database of its own and is a [Service]: HTTP endpoints, consumers of events, tasks. None calls another.
// The order service knows prices, and the notification service knows addresses, from events that they keep a copy of.
//
// Follow a payment: [Orders.Pay] changes the row of the order and records [OrderPaid] in the same transaction; that is
// all. Pabal publishes the event after COMMIT, and calls [Notifications.Paid], which writes a message that a task sends
// after commit with the event's id as idempotency key, and [Settlements.Paid], which writes a ledger entry and adds it
// to the seller's day. [OrderCancelled] travels on the same topic, so that it never overtakes the payment of its order;
// and if an operator lets it pass, the books come out right all the same.
//
// [Load] makes traffic and [Reconcile] compares the books of all services: orders paid = events confirmed = ledger
// entries = notifications, and the sums are equal to the last unit of each currency.
//
// The package knows no database and no broker. Its SQL lies in one folder per dialect; a database comes in as *sql.DB
// together with a pabal.Client of the same database.
package shop
