-- What stands beside pgbench's own tables: JSON with a GIN index, UUIDs with
-- B-tree indexes (the keys in random order), and bytes that do not compress.
-- The rows are the same on every machine but for the random bytes.

create extension pgcrypto;

create table documents (id bigint primary key, doc jsonb not null);
insert into documents
select i, jsonb_build_object(
	'order', i,
	'customer', md5('customer' || i % 60000)::uuid,
	'email', substr(md5('mail' || i), 1, 9) || '@example.' || (array['com', 'org', 'net', 'info'])[1 + i % 4],
	'status', (array['new', 'paid', 'packed', 'shipped', 'delivered', 'returned'])[1 + (i * 7) % 6],
	'created', timestamp '2024-01-01' + i * interval '47 seconds',
	'total', round((abs(hashint8(i)) % 1000000) / 100.0, 2),
	'address', jsonb_build_object(
		'street', (array['Oak', 'Maple', 'Harbour', 'Station', 'Mill', 'Church'])[1 + (i * 11) % 6] || ' Street ' || 1 + i % 240,
		'city', (array['Lisbon', 'Porto', 'Hamburg', 'Lyon', 'Gdansk', 'Trieste', 'Bergen'])[1 + (i * 13) % 7],
		'postcode', 10000 + (i * 31) % 89999),
	'items', jsonb_build_array(
		jsonb_build_object('sku', substr(md5('sku' || i % 9000), 1, 12), 'count', 1 + i % 5),
		jsonb_build_object('sku', substr(md5('sku' || (i * 17) % 9000), 1, 12), 'count', 1 + i % 3)),
	'tags', jsonb_build_array('tag' || i % 97, 'tag' || (i * 3) % 997))
from generate_series(1, 600000) i;
create index documents_doc on documents using gin (doc jsonb_path_ops);

create table events (
	id bigint not null, event uuid not null, session uuid not null,
	at timestamptz not null, amount double precision not null, note text not null);
insert into events
select i, md5('event' || i)::uuid, md5('session' || i / 12)::uuid,
	timestamptz '2024-01-01 00:00Z' + i * interval '9 seconds',
	(hashint8(i) % 100000) / 7.0, 'event of kind ' || i % 40
from generate_series(1, 2500000) i;
alter table events add primary key (id);
create unique index events_event on events (event);
create index events_session on events (session);

create table files (id bigint primary key, body bytea not null);
alter table files alter body set storage external;
insert into files select i, gen_random_bytes(1000) || gen_random_bytes(900) from generate_series(1, 160000) i;
