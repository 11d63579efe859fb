package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"phoenix-lab.org/aln-registry/storage/catalog"
)

// What the flags are told as, in a hint, an error or a line of the log, holds no secret,
// wherever in them it is.
func TestFlagsAreToldWithoutSecrets(t *testing.T) {
	for form, at := range map[string]string{
		"postgres://u:%s@h/d?sslmode=disable": "db", "postgres://u@h/d?sslmode=disable&password=%s": "db", "postgres://u@h/d?pass%%77ord=%s": "db",
		"postgres://u@h/d?PASSWORD=%s": "db", "postgres://u@h/d?sslpassword=%s": "db", "postgres://u@h/d?passfile=%s": "db", "host=h password=%s": "db",
		"postgres://u:%s@one,two:2/d": "db", "postgres://u:%s@/d?host=/run": "db", "postgres://u@h/d;password=%s": "db",
		"s3://KEY:%s@bucket?endpoint=https://h": "blobs", "s3://bucket?endpoint=https://KEY:%s@h": "blobs", "s3://bucket?endpoint=https://h&secret_key=%s": "blobs",
		"s3://bucket?endpoint=https://h&X=%s": "blobs", "s3://KEY:12/%s@bucket?endpoint=https://h": "blobs", "s3://KEY/%s/@bucket?endpoint=https://h": "blobs",
	} {
		for _, secret := range []string{"s3cret", "a;s3cret", "p@s3cret", "p&s3cret", "p&x=s3cret", "1/s3cret", "1?s3cret", "1#s3cret", "%zzs3cret", " s3cret", "p%40s3cret", "s3cret@", "s3cret/x"} {
			f := engineFlags{key: "k"}
			given := fmt.Sprintf(form, secret)
			if at == "db" {
				f.db, f.blobs = given, "s3://bucket?endpoint=https://h"
			} else {
				f.db, f.blobs = "postgres://u@h/d", given
			}
			err := f.check()
			said := fmt.Sprint(err, f.String(), f.database(), f.bucket(), f.mendable(catalog.ErrDamaged), f.mendable(catalog.ErrOldSchema), f.typed("`aln-registry rebuild`"))
			if strings.Contains(said, "s3cret") {
				t.Errorf("%s is told: %s", given, said)
			}
			if usage := (usageError{}); err != nil && !errors.As(err, &usage) {
				t.Errorf("%s: %v is no usage error", given, err)
			}
		}
	}
}

func TestHintsHoldWhatIsNeeded(t *testing.T) {
	f := engineFlags{db: "postgres://u:secret@one:1,two:2/d?sslmode=verify-full&sslrootcert=/etc/ca.pem&search_path=lab", blobs: "s3://bucket/lab?endpoint=https://h&region=eu-1", key: "/k"}
	if err := f.check(); err != nil {
		t.Fatal(err)
	}
	want := "--db 'postgres://u@one:1,two:2/d?sslmode=verify-full&sslrootcert=/etc/ca.pem&search_path=lab' --blobs 's3://bucket/lab?endpoint=https://h&region=eu-1' --key /k"
	if got := f.String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
