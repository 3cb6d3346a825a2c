-- Which version the tables of a role have.

-- name: prepare
create table if not exists shop_schema (
    role    text    primary key,
    version integer not null
) strict, without rowid;

-- name: version
select version from shop_schema where role = ?;

-- name: set_version
insert into shop_schema (role, version) values (?, ?)
on conflict (role) do update set version = excluded.version;
