package verify

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/state"
)

// AnyAge is the MaxAge that lets every checkpoint pass, also one that nobody cosigned.
const AnyAge time.Duration = math.MaxInt64

// Freshness is how old a checkpoint may be, and the time by which that is judged.
// A log that stands still, or a state of it that somebody kept and shows again, is
// signed as well as the newest one; only the time in the cosignature, which the log
// renews every hour, tells them apart.
type Freshness struct {
	// Now is by the verifier's own clock. The registry's (its Date header) will not
	// do: whoever shows an old checkpoint can show the date that goes with it.
	Now time.Time
	// MaxAge is the largest age of the cosignature by the key that signs for the log
	// now. One by a key that was replaced does not count, nor one by others.
	MaxAge time.Duration
}

// checkFreshness holds the time of the cosignature against f.
func (v *Verdict) checkFreshness(f Freshness) {
	age := f.Now.Sub(v.CosignedAt)
	if !v.CosignedAt.IsZero() && !f.Now.IsZero() {
		v.AgeSeconds = int64(age / time.Second)
	}
	if f.MaxAge == AnyAge {
		v.add(CheckFreshness, nil, "its age is not judged: %s", v.said(age))
		return
	}
	v.add(CheckFreshness, f.judge(v.CosignedAt), "%s", v.said(age))
}

// said is the age in words.
func (v *Verdict) said(age time.Duration) string {
	if v.CosignedAt.IsZero() {
		return "the log's key has not cosigned it"
	}
	return fmt.Sprintf("cosigned at %s, %s old", stamp(v.CosignedAt), span(age.Round(time.Second)))
}

func (f Freshness) judge(cosigned time.Time) error {
	age := f.Now.Sub(cosigned)
	switch {
	case f.Now.IsZero() || f.MaxAge <= 0:
		return errors.New("no time and largest age were given to judge it by")
	case cosigned.IsZero():
		return errors.New("the key that signs for the log now has not cosigned it, so that nothing says how old it is: a registry does so every hour; " +
			"somebody shows you an incomplete or an old checkpoint. Believe nothing of it, and ask the registry's operator by another way")
	case age < -state.Skew:
		return fmt.Errorf("it was cosigned at %s, %s in the future of this computer's clock (%s): one of the two clocks is wrong. "+
			"Set this computer's; if it is right, tell the registry's operator", stamp(cosigned), span(-age), stamp(f.Now))
	case age > f.MaxAge:
		return fmt.Errorf("it was cosigned at %s and is %s old, with %s allowed (--max-age): the log stands still, somebody shows you an old state of it, "+
			"or this computer's clock (%s) is wrong. Look at the clock; if it is right, ask the registry's operator by another way what is newer",
			stamp(cosigned), span(age), span(f.MaxAge), stamp(f.Now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// span is a duration as people read it: 25h0m, 3m0s.
func span(d time.Duration) string {
	switch {
	case d.Abs() < time.Millisecond:
		return d.String()
	case d.Abs() < time.Second:
		return d.Round(time.Millisecond).String()
	case d.Abs() < time.Hour:
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
