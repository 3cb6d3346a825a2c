-- Statements of the service member.

-- name: member_get
select name, email, changed_at from member where id = ?;

-- name: member_insert
insert into member (id, name, email, changed_at) values (?, ?, ?, ?);

-- name: member_update
update member set name = ?, email = ?, changed_at = ? where id = ? and (name <> ? or email <> ?);
