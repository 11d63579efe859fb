package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestAnInterruptedCommandSaysSoAndNotWhatItWasDoing(t *testing.T) {
	t.Setenv("ALN_HOME", t.TempDir())
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt signal received"))
	var out, errOut bytes.Buffer
	if status := run(ctx, []string{"login", "http://127.0.0.1:1"}, strings.NewReader(""), &out, &errOut); status != exitFailed {
		t.Errorf("status %d", status)
	}
	if errOut.String() != "aln-registry: interrupted\n" || out.Len() != 0 {
		t.Errorf("said %q and %q", out.String(), errOut.String())
	}
}

// What failed since it was interrupted is no finding, with something to mend.
func TestAnInterruptedDoctorReportsNothing(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt signal received"))
	for _, args := range [][]string{{"doctor"}, {"doctor", "--json"}} {
		t.Setenv("ALN_HOME", t.TempDir())
		var out, errOut bytes.Buffer
		if status := run(ctx, args, strings.NewReader(""), &out, &errOut); status != exitFailed || errOut.String() != "aln-registry: interrupted\n" || out.Len() != 0 {
			t.Errorf("%q: status %d, said %q and %q", args, status, out.String(), errOut.String())
		}
	}
}

func TestAnInterruptedCommandSaysWhatItLeaves(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if err := ifInterrupted(ctx, context.Canceled, "nothing was changed"); left(err) != "" {
		t.Errorf("before any signal: %v", err)
	}
	cancel()
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""}, {errors.New("the disk is full"), ""}, {fmt.Errorf("copy: %w", context.Canceled), "; nothing was changed"},
	} {
		if err := ifInterrupted(ctx, c.err, "nothing was changed"); !errors.Is(err, c.err) || left(err) != c.want {
			t.Errorf("%v becomes %v, and leaves %q", c.err, err, left(err))
		}
	}
}

func TestWhatAnInterruptDidNotCauseIsTold(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("interrupt signal received")
	if interrupted(ctx, cause) {
		t.Error("interrupted before any signal")
	}
	cancel(cause)
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("ask: %w", cause), true},
		{fmt.Errorf("ask: %w", context.Canceled), true},
		{errors.New("the disk is full"), false},
	} {
		if got := interrupted(ctx, c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
