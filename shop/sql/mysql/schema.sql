-- Which version the tables of a role have.

-- name: prepare
create table if not exists shop_schema (
    role    varchar(32) not null primary key,
    version int         not null
) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin;

-- name: version
select version from shop_schema where role = ?;

-- name: set_version
insert into shop_schema (role, version) values (?, ?)
on duplicate key update version = values(version);
