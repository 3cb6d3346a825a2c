-- Statements of the service member.

-- name: member_get
select name, email, changed_at from member where id = $1;

-- name: member_insert
insert into member (id, name, email, changed_at) values ($1, $2, $3, $4);

-- name: member_update
update member set name = $1, email = $2, changed_at = $3 where id = $4 and (name <> $5 or email <> $6);
