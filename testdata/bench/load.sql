\set i random(1, 600000)
\set k random(1, 2500000)
begin;
update documents set doc = doc || jsonb_build_object('status', 'seen', 'visits', :i) where id = :i;
update events set note = 'seen', session = gen_random_uuid() where id = :k;
insert into files select 1000000 + nextval('more_files'), gen_random_bytes(500);
commit;
