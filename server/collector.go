package server

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"phoenix-lab.org/aln-registry/registry"
)

// collector reads what others count when it is asked.
type collector struct{ server *Server }

// watch shows the figures of s and its registry too.
func (m *Metrics) watch(s *Server) { m.gatherer.MustRegister(collector{s}) }

func described(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	inFlightDesc = described("aln_http_requests_in_flight", "Requests being answered.")

	publishedDesc = described("aln_log_published_entries", "Entries of the log that are visible.")
	committedDesc = described("aln_log_committed_entries", "Entries of the log that are in the catalog; more than are visible while a batch is being published, or cannot be.")
	cosignedDesc  = described("aln_log_cosigned_timestamp_seconds", "When the visible checkpoint's cosignature was made.")
	queueDesc     = described("aln_log_queue_length", "Changes that wait for the log.")
	queueMostDesc = described("aln_log_queue_limit", "Changes that may wait for the log.")
	batchDesc     = described("aln_log_batch_age_seconds", "How long the batch under way has taken, 0 where there is none.")

	confirmedDesc = described("aln_replica_confirmed_age_seconds", "How long ago this server asked, with success, for a confirmation that it shows all there is; 0 where it has the catalog for itself, -1 where it never did.")
	lookedDesc    = described("aln_replica_looked_age_seconds", "How long ago the database said what other servers have published; 0 where this one has it for itself, -1 where it never did.")
	behindDesc    = described("aln_replica_behind_entries", "Entries that others have published and that this server does not show yet.")

	hitsDesc        = described("aln_cache_hits_total", "Answers from memory.", "cache")
	missesDesc      = described("aln_cache_misses_total", "Answers that were not in memory.", "cache")
	evictionsDesc   = described("aln_cache_evictions_total", "What made room for others.", "cache")
	invalidatedDesc = described("aln_cache_invalidations_total", "What a change of state took out.", "cache")
	entriesDesc     = described("aln_cache_entries", "How many things are in memory.", "cache")
	entriesMostDesc = described("aln_cache_entries_limit", "How many things may be in memory.", "cache")
	bytesDesc       = described("aln_cache_bytes", "How many bytes are in memory.", "cache")
	bytesMostDesc   = described("aln_cache_limit_bytes", "How many bytes may be in memory.", "cache")

	deniedDesc       = described("envgrnt_denied_total", "What was asked for and denied, by the rule that decided.", "rule")
	auditDesc        = described("aln_audit_entries_total", "Entries of the audit trail that were written.")
	auditCountedDesc = described("aln_audit_counted_total", "Events that had no room for an entry of their own, and were counted by rule.")
	auditWaitDesc    = described("aln_audit_waiting", "Entries of the audit trail that are not written yet.")
	auditMostDesc    = described("aln_audit_waiting_limit", "Entries of the audit trail that may wait.")

	freeDesc    = described("aln_data_free_bytes", "Bytes that this program may still write to the data folder's file system, or to that of uploads under way.")
	sizeDesc    = described("aln_data_size_bytes", "Bytes of that file system.")
	expiryDesc  = described("aln_tls_certificate_expiry_timestamp_seconds", "When the TLS certificate ends.")
	placesDescs = map[string]placeDescs{"uploads": describedPlaces("uploads"), "searches": describedPlaces("searches"), "proofs": describedPlaces("proofs"),
		"questions": describedPlaces("questions"), "decisions": describedPlaces("decisions"), "rule_tests": describedPlaces("rule_tests"),
		"downloads": describedPlaces("downloads"), "upstream_fetches": describedPlaces("upstream_fetches"), "upstream_sends": describedPlaces("upstream_sends"),
		"upstream_questions": describedPlaces("upstream_questions"), "attachments": describedPlaces("attachments"), "upstream_prefetches": describedPlaces("upstream_prefetches")}
)

// placeDescs are those of requests that need a place.
type placeDescs struct{ running, waiting, limit, turnedAway *prometheus.Desc }

func describedPlaces(of string) placeDescs {
	return placeDescs{
		running:    described("aln_"+of+"_running", "The "+spaced(of)+" under way."),
		waiting:    described("aln_"+of+"_waiting", "The "+spaced(of)+" that wait for a place."),
		limit:      described("aln_"+of+"_limit", "How many "+spaced(of)+" may be under way."),
		turnedAway: described("aln_"+of+"_turned_away_total", "The "+spaced(of)+" that got no place."),
	}
}

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s, figures := c.server, c.server.registry.Figures()
	level(to, inFlightDesc, float64(s.metrics.inFlight.Load()))
	level(to, publishedDesc, float64(figures.Published))
	level(to, committedDesc, float64(figures.Committed))
	level(to, cosignedDesc, float64(figures.Cosigned.Unix()))
	level(to, queueDesc, float64(figures.Queue))
	level(to, queueMostDesc, float64(figures.QueueLimit))
	level(to, batchDesc, figures.Batch.Seconds())
	level(to, confirmedDesc, age(figures.Replica.Confirmed))
	level(to, lookedDesc, age(figures.Replica.Looked))
	level(to, behindDesc, float64(figures.Replica.Behind))
	collectCache(to, "state", figures.State)
	collectCache(to, "artifacts", figures.Artifacts)
	collectCache(to, "sessions", figures.Sessions)
	collectCache(to, "grants", figures.Grants)
	s.uploads.collect(to, placesDescs["uploads"])
	s.searches.collect(to, placesDescs["searches"])
	s.proofs.collect(to, placesDescs["proofs"])
	s.questions.collect(to, placesDescs["questions"])
	s.decisions.collect(to, placesDescs["decisions"])
	s.tests.collect(to, placesDescs["rule_tests"])
	s.downloads.collect(to, placesDescs["downloads"])
	s.attachments.collect(to, placesDescs["attachments"])
	s.sends.collect(to, placesDescs["upstream_sends"])
	collectPlaces(to, placesDescs["upstream_fetches"], slices.Collect(maps.Values(s.fetches))...)
	s.upstreamQuestions.collect(to, placesDescs["upstream_questions"])
	s.prefetches.collect(to, placesDescs["upstream_prefetches"])
	collectUpstreams(to, s.upstreams.State())
	collectAudit(to, figures.Audit)
	if s.metrics.config.Certificate != nil {
		level(to, expiryDesc, float64(s.metrics.config.Certificate.NotAfter().Unix()))
	}
	if room := s.metrics.config.Room; room != nil {
		free, size, err := room()
		if err != nil { // the other figures are worth more now than ever
			s.log.Error("the room for the data folder is not known", "error", err)
			return
		}
		level(to, freeDesc, float64(free))
		level(to, sizeDesc, float64(size))
	}
}

// age is d in seconds, -1 for what has not happened.
func age(d time.Duration) float64 {
	if d < 0 {
		return -1
	}
	return d.Seconds()
}

func collectAudit(to chan<- prometheus.Metric, f registry.AuditFigures) {
	for rule, n := range f.Denied {
		count(to, deniedDesc, n, rule)
	}
	count(to, auditDesc, f.Written)
	count(to, auditCountedDesc, f.Counted)
	level(to, auditWaitDesc, float64(f.Waiting))
	level(to, auditMostDesc, float64(f.WaitingMost))
}

func level(to chan<- prometheus.Metric, d *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

func count(to chan<- prometheus.Metric, d *prometheus.Desc, value uint64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

func collectCache(to chan<- prometheus.Metric, name string, s registry.Stats) {
	count(to, hitsDesc, s.CacheHits, name)
	count(to, missesDesc, s.CacheMisses, name)
	count(to, evictionsDesc, s.CacheEvictions, name)
	count(to, invalidatedDesc, s.CacheInvalidations, name)
	level(to, entriesDesc, float64(s.CacheEntries), name)
	if s.CacheMost > 0 {
		level(to, entriesMostDesc, float64(s.CacheMost), name)
		return
	}
	level(to, bytesDesc, float64(s.CacheBytes), name)
	level(to, bytesMostDesc, float64(s.CacheLimit), name)
}

func (p *places) collect(to chan<- prometheus.Metric, d placeDescs) { collectPlaces(to, d, p) }

// collectPlaces sums up places of one kind.
func collectPlaces(to chan<- prometheus.Metric, d placeDescs, all ...*places) {
	var running, limit int
	var waiting int64
	var turnedAway uint64
	for _, p := range all {
		running, limit = running+len(p.free), limit+cap(p.free)
		waiting, turnedAway = waiting+p.waiting.Load(), turnedAway+p.turnedAway.Load()
	}
	level(to, d.running, float64(running))
	level(to, d.waiting, float64(waiting))
	level(to, d.limit, float64(limit))
	count(to, d.turnedAway, turnedAway)
}
