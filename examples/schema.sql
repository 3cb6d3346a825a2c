create table orders (
    no     varchar(32) not null primary key,
    status varchar(16) not null
);
