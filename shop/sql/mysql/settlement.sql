-- Statements of the service settlement.

-- name: ledger_known
select order_no, kind from ledger where kind = ? and order_no in (?...);

-- name: ledger_insert
insert into ledger (order_no, kind, event_id, seller_id, day, currency, amount, handled, booked_at)
values (?, ?, ?, ?, ?, ?, ?, 1, ?)...;

-- name: ledger_again
update ledger force index (primary) set handled = handled + 1 where kind = ? and order_no in (?...);

-- name: settlement_add
insert into settlement (seller_id, day, currency, payments, reversals, paid, reversed) values (?, ?, ?, ?, ?, ?, ?)...
on duplicate key update payments = payments + values(payments), reversals = reversals + values(reversals),
    paid = paid + values(paid), reversed = reversed + values(reversed);

-- name: settlement_get
select seller_id, day, currency, payments, reversals, paid, reversed
from settlement where seller_id = ? and day = ? order by currency;

-- name: ledger_get
select order_no, kind, event_id, seller_id, day, currency, amount, handled, booked_at
from ledger where order_no = ? order by kind;

-- name: books
select order_no, kind, seller_id, day, currency, amount, handled from ledger order by order_no, kind;

-- name: days
select seller_id, day, currency, payments, reversals, paid, reversed from settlement;

-- name: totals
select coalesce(sum(kind = 'payment'), 0), coalesce(sum(kind = 'reversal'), 0) from ledger;
