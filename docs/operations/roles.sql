-- Who may do what in SyncFlow's database: three roles, none of which is a superuser.
--
--   syncflow_owner    makes and changes tables: syncflow migrate, and nothing else
--   syncflow_app      reads and writes rows: code location, runs, webserver, daemon, API, command line
--   syncflow_reader   reads the schema bridge: reports. Its rows may hold personal data
--
-- Run it in SyncFlow's own database, once, as a superuser, before the first migration or after any:
-- running it again changes nothing. The roles cannot log in until they have a password:
--   ALTER ROLE syncflow_app LOGIN PASSWORD '...'
-- Where tables exist already, give them away first: REASSIGN OWNED BY old_user TO syncflow_owner

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['syncflow_owner', 'syncflow_app', 'syncflow_reader'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        EXCEPTION WHEN duplicate_object THEN
            NULL;
        END;
    END LOOP;
    EXECUTE format('ALTER DATABASE %I OWNER TO syncflow_owner', current_database());
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    -- temporary tables take what is loaded in bulk
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO syncflow_app', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO syncflow_reader', current_database());
END
$$;

-- Dagster's history lies in public, SyncFlow's tables in bridge
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO syncflow_owner;
GRANT USAGE ON SCHEMA public TO syncflow_app;
CREATE SCHEMA IF NOT EXISTS bridge AUTHORIZATION syncflow_owner;
GRANT USAGE ON SCHEMA bridge TO syncflow_app, syncflow_reader;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, bridge TO syncflow_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public, bridge TO syncflow_app;
GRANT SELECT ON ALL TABLES IN SCHEMA bridge TO syncflow_reader;

-- and in whatever the owner makes later. syncflow migrate --down removes the schema bridge and, with it,
-- what was granted there: run this again then
ALTER DEFAULT PRIVILEGES FOR ROLE syncflow_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO syncflow_app;
ALTER DEFAULT PRIVILEGES FOR ROLE syncflow_owner IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO syncflow_app;
ALTER DEFAULT PRIVILEGES FOR ROLE syncflow_owner IN SCHEMA bridge
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO syncflow_app;
ALTER DEFAULT PRIVILEGES FOR ROLE syncflow_owner IN SCHEMA bridge
    GRANT USAGE, SELECT ON SEQUENCES TO syncflow_app;
ALTER DEFAULT PRIVILEGES FOR ROLE syncflow_owner IN SCHEMA bridge
    GRANT SELECT ON TABLES TO syncflow_reader;
