package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/go-json-experiment/json"

	"phoenix-lab.org/aln-registry/registry/particle"
)

// Alarm is something that an upstream did and should never do.
type Alarm struct {
	ID   int64         `json:"id"`
	Time particle.Time `json:"time"`
	Name string        `json:"name"`
	// Version is "" where it is of no one version.
	Version string `json:"version"`
	Kind    string `json:"kind"`
	Detail  string `json:"detail"`
	// Seen is nil where nobody has looked into it.
	Seen *AlarmSeen `json:"seen"`
}

// AlarmSeen is that an admin has looked into an alarm, and what they say of it.
type AlarmSeen struct {
	Time particle.Time `json:"time"`
	By   string        `json:"by"`
	Why  string        `json:"why"`
}

// alarmPage is how many alarms are asked for at once.
const alarmPage = 1000

// Alarms returns the newest alarms of an upstream, newest first, at most most; more: there are others.
// With unseen they are those that nobody has looked into. It takes an auditor or an admin.
func (r *Registry) Alarms(ctx context.Context, upstream string, most int, unseen bool) (all []Alarm, more bool, err error) {
	session, err := r.Bare().NewSession(ctx, particle.ScopeAudit, changeLifetime)
	if err != nil {
		return nil, false, r.noAuditor(err)
	}
	for before := int64(0); ; {
		query := url.Values{"limit": {strconv.Itoa(min(most-len(all), alarmPage))}}
		if unseen {
			query.Set("unseen", "true")
		}
		if before > 0 {
			query.Set("before", strconv.FormatInt(before, 10))
		}
		var page struct {
			Alarms []Alarm `json:"alarms"`
			Next   *int64  `json:"next"`
		}
		path := "/v1/upstreams/" + url.PathEscape(upstream) + "/alarms?" + query.Encode()
		if err := r.web.json(ctx, call{method: http.MethodGet, path: path, token: session.Token}, maxBundle, &page); err != nil {
			return nil, false, err
		}
		all = append(all, page.Alarms...)
		switch {
		case page.Next == nil:
			return all, false, nil
		case len(all) >= most:
			return all[:most], true, nil
		case *page.Next >= before && before > 0 || len(page.Alarms) == 0:
			return nil, false, fmt.Errorf("%w: its alarms go round in a circle", ErrAnswer)
		}
		before = *page.Next
	}
}

// noAuditor is err, in the words of whoever asked for alarms where it is about roles.
func (r *Registry) noAuditor(err error) error {
	var refused *APIError
	if r.identity == nil || !errors.As(err, &refused) || refused.Status != http.StatusForbidden || refused.Code != "role" {
		return err
	}
	return fmt.Errorf("%w: the alarms of upstreams are for auditors and admins, and %s is neither; an admin gives the role auditor with `aln-registry member add`, which is told all roles that are to stay", ErrNotEntitled, r.identity.DID())
}

// SeeAlarm says of an alarm of an upstream that it was looked into, and why nobody is to be warned of
// it any more; it returns how many were marked, 0 where somebody did that before. It takes an admin.
func (r *Registry) SeeAlarm(ctx context.Context, upstream string, id int64, why string) (marked int64, err error) {
	session, err := r.Bare().NewSession(ctx, particle.ScopeAdmin, changeLifetime)
	if err != nil {
		return 0, err
	}
	body, err := json.Marshal(struct {
		Why string `json:"why"`
	}{why})
	if err != nil {
		return 0, err
	}
	var done struct {
		Marked int64 `json:"marked"`
	}
	path := "/v1/upstreams/" + url.PathEscape(upstream) + "/alarms/" + strconv.FormatInt(id, 10) + "/seen"
	err = r.web.json(ctx, call{method: http.MethodPost, path: path, token: session.Token, contentType: "application/json", body: body}, maxAnswer, &done)
	return done.Marked, err
}
