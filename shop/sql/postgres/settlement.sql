-- Statements of the service settlement.

-- name: ledger_known
select order_no, kind from ledger where kind = $1 and order_no in ($2...);

-- name: ledger_insert
insert into ledger (order_no, kind, event_id, seller_id, day, currency, amount, handled, booked_at)
values ($1, $2, $3, $4, $5, $6, $7, 1, $8)...;

-- name: ledger_again
update ledger set handled = handled + 1 where kind = $1 and order_no in ($2...);

-- name: settlement_add
insert into settlement (seller_id, day, currency, payments, reversals, paid, reversed) values ($1, $2, $3, $4, $5, $6, $7)...
on conflict (seller_id, day, currency) do update set payments = settlement.payments + excluded.payments,
    reversals = settlement.reversals + excluded.reversals, paid = settlement.paid + excluded.paid,
    reversed = settlement.reversed + excluded.reversed;

-- name: settlement_get
select seller_id, day, currency, payments, reversals, paid, reversed
from settlement where seller_id = $1 and day = $2 order by currency;

-- name: ledger_get
select order_no, kind, event_id, seller_id, day, currency, amount, handled, booked_at
from ledger where order_no = $1 order by kind;

-- name: books
select order_no, kind, seller_id, day, currency, amount, handled from ledger order by order_no, kind;

-- name: days
select seller_id, day, currency, payments, reversals, paid, reversed from settlement;

-- name: totals
select count(*) filter (where kind = 'payment'), count(*) filter (where kind = 'reversal') from ledger;
