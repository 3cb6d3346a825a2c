-- Which version the tables of a role have.

-- name: prepare
select pg_advisory_xact_lock(60251107);
create table if not exists shop_schema (
    role    text   collate "C" primary key,
    version bigint not null
);
create or replace function shop_version(wanted text) returns setof bigint language plpgsql as $$
begin
    perform pg_advisory_xact_lock(60251107); -- one process migrates, the others wait until it has
    return query select s.version from shop_schema s where s.role = wanted;
end $$;

-- name: version
select version from shop_version($1) as version;

-- name: set_version
insert into shop_schema (role, version) values ($1, $2)
on conflict (role) do update set version = excluded.version;
