-- Tables of the service member.

-- version: 1
create table member (
    id         text   collate "C" primary key,
    name       text   collate "C" not null,
    email      text   collate "C" not null,
    changed_at bigint not null
);
