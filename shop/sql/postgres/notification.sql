-- Statements of the service notification.

-- name: contact_put
insert into contact (member_id, name, email) values ($1, $2, $3)...
on conflict (member_id) do update set name = excluded.name, email = excluded.email;

-- name: message_insert
insert into message (event_id, kind, member_id, subject, body, handled, next_at, created_at) values ($1, $2, $3, $4, $5, $6, $7, $8)...
on conflict (event_id) do update set handled = message.handled + excluded.handled;

-- name: alert_insert
insert into restock_alert (event_id, product_id, member_id) values ($1, $2, $3)...
on conflict (product_id, member_id) do nothing;

-- name: alert_messages
insert into message (event_id, kind, member_id, subject, body, next_at, created_at)
select event_id, 'restocked', member_id, product_id, $1::text, $2::bigint, $3::bigint from restock_alert where product_id = $4
on conflict (event_id) do nothing;

-- name: alerts_delete
delete from restock_alert where product_id = $1;

-- name: message_next
select coalesce(min(next_at), 0) from message where state = 'waiting';

-- name: message_due
select m.event_id, m.kind, m.member_id, m.subject, m.body, m.state, m.attempts, m.sent_at, m.last_error, m.created_at,
       coalesce(c.name, ''), coalesce(c.email, '')
from message m left join contact c on c.member_id = m.member_id
where m.state = 'waiting' and m.next_at <= $1 order by m.next_at limit $2 for update of m skip locked;

-- name: message_claim
update message set attempts = attempts + 1, next_at = $1 where event_id in ($2...);

-- name: message_sent
update message set state = 'sent', sent_at = $1, last_error = '' where state = 'waiting' and event_id in ($2...);

-- name: message_again
update message set state = $1, next_at = $2, last_error = $3 where event_id = $4 and state = 'waiting' and attempts = $5;

-- name: message_list
select event_id, kind, member_id, subject, body, state, attempts, sent_at, last_error, created_at, '', ''
from message where event_id < $1 order by event_id desc limit $2;

-- name: message_list_member
select event_id, kind, member_id, subject, body, state, attempts, sent_at, last_error, created_at, '', ''
from message where member_id = $1 and event_id < $2 order by event_id desc limit $3;

-- name: message_list_subject
select event_id, kind, member_id, subject, body, state, attempts, sent_at, last_error, created_at, '', ''
from message where subject = $1 and event_id < $2 order by event_id desc limit $3;

-- name: books
select subject, kind, handled from message where kind in ('paid', 'cancelled') order by subject, kind desc;

-- name: totals
select count(*) filter (where kind = 'paid'), count(*) filter (where kind = 'cancelled'), count(*) filter (where kind = 'restocked'),
       count(*) filter (where state <> 'sent')
from message;
