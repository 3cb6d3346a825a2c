-- Tables of the service member. A statement may be run again: DDL ends a transaction, and a migration may be interrupted.

-- version: 1
create table if not exists member (
    id         varchar(64)  not null primary key,
    name       varchar(400) not null,
    email      varchar(400) not null,
    changed_at bigint       not null
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;
