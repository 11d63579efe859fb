//go:build unix

package testbed

import (
	"database/sql"
	"os"
	"testing"
)

func TestPostgresKeepsWhatWasCommitted(t *testing.T) {
	p := Postgres(t)
	db, err := sql.Open("pgx", p.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	down := func() {
		t.Helper()
		if err := db.PingContext(t.Context()); err == nil {
			t.Fatal("it answers though it is down")
		}
		p.Start()
		db.PingContext(t.Context()) // connections from before fail once
	}
	exec("CREATE TABLE a (x INT)")
	exec("INSERT INTO a VALUES (1)")
	p.Kill()
	down()
	exec("INSERT INTO a VALUES (2)")
	p.Stop()
	down()
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM a").Scan(&n); err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
	if p.NewDatabase(t) == p.URL {
		t.Error("one database for two")
	}
}

func TestPostgresLeavesNothing(t *testing.T) {
	var s *pgServer
	var pid int
	t.Run("while it runs", func(t *testing.T) {
		p := Postgres(t)
		s, pid = p.server, p.server.pid
		if !running(pid) {
			t.Error("it does not run")
		}
	})
	if running(pid) {
		t.Error("it runs on")
	}
	if _, err := os.Stat(s.folder); !os.IsNotExist(err) {
		t.Errorf("its folder is there still: %v", err)
	}
}

func TestPostgresIsShared(t *testing.T) {
	a, b := SharedPostgres(t), SharedPostgres(t)
	if a.server != b.server || a.URL == b.URL {
		t.Errorf("two servers, or one database: %s, %s", a.URL, b.URL)
	}
}

func TestPostgresServesTLS(t *testing.T) {
	p := SharedPostgres(t)
	db, err := sql.Open("pgx", p.TLSURL(p.URL, p.Address()))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var encrypted bool
	if err := db.QueryRowContext(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted); err != nil || !encrypted {
		t.Errorf("encrypted: %t, %v", encrypted, err)
	}
}
