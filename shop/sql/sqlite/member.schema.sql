-- Tables of the service member.

-- version: 1
create table member (
    id         text    primary key,
    name       text    not null,
    email      text    not null,
    changed_at integer not null
) strict, without rowid;
