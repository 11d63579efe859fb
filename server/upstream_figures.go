package server

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	upstreamDownDesc     = described("aln_upstream_down", "1 while an upstream did not answer a moment ago, and is not asked.", "upstream")
	upstreamRequestsDesc = described("aln_upstream_requests_total", "Requests made of upstreams.")
	upstreamRetriesDesc  = described("aln_upstream_retries_total", "Requests made of upstreams after another had failed.")
	upstreamJoinedDesc   = described("aln_upstream_joined_total", "Askers who waited for what somebody else had asked an upstream for.")
	upstreamIndexDesc    = described("aln_upstream_index_files_total", "Index files of upstreams that were asked for, by where the answer was from.", "from")
	upstreamAheadDesc    = described("aln_upstream_ahead_total", "Index files of upstreams that were fetched before they were asked for.")
	upstreamCratesDesc   = described("aln_upstream_crates_total", "Crates of upstreams that were asked for, by where they were from.", "from")
	upstreamBytesDesc    = described("aln_upstream_received_bytes_total", "Bytes of crates that came from upstreams.")
	upstreamMismatchDesc = described("aln_upstream_mismatches_total", "Crates that were not what the upstream's index names: none was kept.")
	upstreamUnstoredDesc = described("aln_upstream_unstored_total", "Crates that were received and could not be stored, or noted as such.")
	upstreamPassedDesc   = described("aln_upstream_passed_total", "Crates that were received and not kept, since the same were evicted a short while ago.")
	upstreamDamagedDesc  = described("aln_upstream_damaged_total", "Crates that were held and found damaged on storage: they are fetched anew.")
	upstreamAlarmsDesc   = described("aln_upstream_alarms_total", "What upstreams did that they should never do.")
	upstreamNowDesc      = described("aln_upstream_receiving", "Crates that are being received.")
	upstreamSpoolDesc    = described("aln_upstream_spool_bytes", "Bytes that those take on disk.")
	upstreamCacheDesc    = described("aln_upstream_cache_bytes", "Bytes of the crates of upstreams that are held, as last counted.")
	upstreamLimitDesc    = described("aln_upstream_cache_limit_bytes", "What those may be, 0 for no bound.")
	upstreamEvictedDesc  = described("aln_upstream_evicted_total", "Crates of upstreams that made room for others.")
)

// spaced is a name of the figures as words.
func spaced(name string) string { return strings.ReplaceAll(name, "_", " ") }

func collectUpstreams(to chan<- prometheus.Metric, s UpstreamsState) {
	if len(s.All) == 0 {
		s.All = []Upstream{{Name: cratesIO}} // so that what alerts ask for is there
	}
	for _, u := range s.All {
		down := 0.0
		if u.Down {
			down = 1
		}
		level(to, upstreamDownDesc, down, u.Name)
	}
	f := s.Figures
	count(to, upstreamRequestsDesc, f.Requests)
	count(to, upstreamRetriesDesc, f.Retries)
	count(to, upstreamJoinedDesc, f.Joined)
	for from, n := range map[string]uint64{"fresh": f.Fresh, "unchanged": f.Unchanged, "imported": f.Imported, "stale": f.Stale, "rested": f.Rested} {
		count(to, upstreamIndexDesc, n, from)
	}
	count(to, upstreamAheadDesc, f.Ahead)
	count(to, upstreamCratesDesc, f.Held, "held")
	count(to, upstreamCratesDesc, f.Received, "received")
	count(to, upstreamBytesDesc, f.Bytes)
	count(to, upstreamMismatchDesc, f.Mismatches)
	count(to, upstreamUnstoredDesc, f.Unstored)
	count(to, upstreamPassedDesc, f.Passed)
	count(to, upstreamDamagedDesc, f.Damaged)
	count(to, upstreamAlarmsDesc, f.Alarms)
	level(to, upstreamNowDesc, float64(f.Receiving))
	level(to, upstreamSpoolDesc, float64(f.SpoolBytes))
	level(to, upstreamCacheDesc, float64(f.CacheBytes))
	level(to, upstreamLimitDesc, float64(f.CacheLimit))
	count(to, upstreamEvictedDesc, f.Evicted)
}
