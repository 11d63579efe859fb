package server

import (
	"fmt"
	"net/http"
	"strconv"

	"phoenix-lab.org/aln-registry/registry"
	"phoenix-lab.org/aln-registry/registry/particle"
	"phoenix-lab.org/aln-registry/registry/policy"
)

// Sizes of pages of alarms.
const (
	defaultAlarms = 100
	mostAlarms    = 1000
)

// maxSeenBody bounds what is said of an alarm that was looked into.
const maxSeenBody = 4 << 10

// alarmJSON is an alarm as the API tells it.
type alarmJSON struct {
	ID      int64         `json:"id"`
	Time    particle.Time `json:"time"`
	Name    string        `json:"name"`
	Version string        `json:"version"`
	Kind    string        `json:"kind"`
	Detail  string        `json:"detail"`
	// Seen is null where nobody has looked into it.
	Seen *seenJSON `json:"seen"`
}

// seenJSON is that somebody has looked into an alarm.
type seenJSON struct {
	Time particle.Time `json:"time"`
	By   string        `json:"by"`
	Why  string        `json:"why"`
}

// alarms is GET /v1/upstreams/{name}/alarms: ?before=&limit=&unseen=true, for auditors and admins, since
// it names crates that whoever asks may not know of otherwise.
func (s *Server) alarms(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.auditor(w, r)
	if err != nil {
		return err
	}
	upstream, err := s.knownUpstream(r, ofAny)
	if err != nil {
		return err
	}
	limit, err := queryInt(r, "limit", defaultAlarms, 1, mostAlarms)
	if err != nil {
		return err
	}
	before, err := queryBefore(r)
	if err != nil {
		return err
	}
	unseen := r.URL.Query().Get("unseen")
	if unseen != "" && unseen != "true" && unseen != "false" {
		return fmt.Errorf("%w: unseen is true or false", registry.ErrRequest)
	}
	release, err := s.searches.take(r.Context(), asker.DID)
	if err != nil {
		return err
	}
	defer release()
	found, err := s.upstreams.Alarms(r.Context(), upstream, before, limit, unseen == "true")
	if err != nil {
		return err
	}
	told := []alarmJSON{}
	for _, a := range found {
		one := alarmJSON{a.ID, particle.At(a.At), a.Name, a.Version, a.Kind, a.Detail, nil}
		if !a.SeenAt.IsZero() {
			one.Seen = &seenJSON{particle.At(a.SeenAt), a.SeenBy, a.SeenWhy}
		}
		told = append(told, one)
	}
	var next *int64
	if len(told) == limit {
		next = &told[limit-1].ID
	}
	return s.answer(w, r, struct {
		Alarms []alarmJSON `json:"alarms"`
		Next   *int64      `json:"next"`
	}{told, next})
}

// seeAlarm is POST /v1/upstreams/{name}/alarms/{id}/seen, for admins: who asks has looked into the
// alarm, and says why nobody is to be warned of it any more. It may be repeated.
func (s *Server) seeAlarm(w http.ResponseWriter, r *http.Request) error {
	asker, err := s.member(w, r)
	if err != nil {
		return err
	}
	if denial := policy.SeeAlarm(asker); denial != nil {
		return denial
	}
	upstream, err := s.knownUpstream(r, ofAny)
	if err != nil {
		return err
	}
	id, err := strconv.ParseInt(param(r, "id"), 10, 64)
	if err != nil || id < 1 {
		return fmt.Errorf("%w: an alarm is named by its number", registry.ErrNotFound)
	}
	var said struct {
		Why string `json:"why"`
	}
	if err := readJSON(w, r, maxSeenBody, &said); err != nil {
		return err
	}
	if asker, err = s.member(w, r); err != nil { // by now: a body takes its time to come
		return err
	}
	marked, err := s.registry.SeeUpstreamAlarm(r.Context(), asker, upstream, id, said.Why, observed(r.Context()).id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Marked int64 `json:"marked"`
	}{marked})
	return nil
}
