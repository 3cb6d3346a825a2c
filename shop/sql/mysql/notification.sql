-- Statements of the service notification.

-- name: contact_put
insert into contact (member_id, name, email) values (?, ?, ?)...
on duplicate key update name = values(name), email = values(email);

-- name: message_insert
insert into message (event_id, kind, member_id, subject, body, handled, next_at, created_at) values (?, ?, ?, ?, ?, ?, ?, ?)...
on duplicate key update handled = handled + values(handled);

-- name: alert_insert
insert into restock_alert (event_id, product_id, member_id) values (?, ?, ?)...
on duplicate key update member_id = values(member_id);

-- name: alert_messages
insert into message (event_id, kind, member_id, subject, body, next_at, created_at)
select event_id, 'restocked', member_id, product_id, ?, ?, ? from restock_alert where product_id = ?
on duplicate key update handled = handled;

-- name: alerts_delete
delete from restock_alert where product_id = ?;

-- name: message_next
select coalesce(min(next_at), 0) from message where state = 'waiting';

-- name: message_due
select m.event_id, m.kind, m.member_id, m.subject, m.body, m.state, m.attempts, m.sent_at, m.last_error, m.created_at,
       coalesce(c.name, ''), coalesce(c.email, '')
from message m left join contact c on c.member_id = m.member_id
where m.state = 'waiting' and m.next_at <= ? order by m.next_at limit ? for update skip locked;

-- name: message_claim
update message force index (primary) set attempts = attempts + 1, next_at = ? where event_id in (?...);

-- name: message_sent
update message force index (primary) set state = 'sent', sent_at = ?, last_error = '' where state = 'waiting' and event_id in (?...);

-- name: message_again
update message force index (primary) set state = ?, next_at = ?, last_error = ? where event_id = ? and state = 'waiting' and attempts = ?;

-- name: message_list
select event_id, kind, member_id, subject, body, state, attempts, sent_at, last_error, created_at, '', ''
from message where event_id < ? order by event_id desc limit ?;

-- name: message_list_member
select event_id, kind, member_id, subject, body, state, attempts, sent_at, last_error, created_at, '', ''
from message where member_id = ? and event_id < ? order by event_id desc limit ?;

-- name: message_list_subject
select event_id, kind, member_id, subject, body, state, attempts, sent_at, last_error, created_at, '', ''
from message where subject = ? and event_id < ? order by event_id desc limit ?;

-- name: books
select subject, kind, handled from message where kind in ('paid', 'cancelled') order by subject, kind desc;

-- name: totals
select coalesce(sum(kind = 'paid'), 0), coalesce(sum(kind = 'cancelled'), 0), coalesce(sum(kind = 'restocked'), 0),
       coalesce(sum(state <> 'sent'), 0)
from message;
