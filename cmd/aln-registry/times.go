package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"phoenix-lab.org/aln-registry/registry/particle"
)

const howToWriteTimes = "write a time from now such as 12h or 30d, a day such as 2027-01-31, which is its first second in UTC, or 2027-01-31T08:00:00Z"

// parseTime reads what people give as a time: how long from now, a day, or a second.
func parseTime(flag, text string, now time.Time) (particle.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= 100*366 {
			return particle.At(now.AddDate(0, 0, n)), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return particle.At(now.Add(d)), nil
	}
	for _, form := range []string{time.DateOnly, "2006-01-02T15:04:05Z"} {
		if t, err := time.Parse(form, text); err == nil {
			return particle.At(t), nil
		}
	}
	return particle.Time{}, usageError{fmt.Errorf("--%s %.40q: %s", flag, text, howToWriteTimes)}
}
