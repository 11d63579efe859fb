package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"phoenix-lab.org/aln-registry/registry/record"
	"phoenix-lab.org/aln-registry/storage"
	"phoenix-lab.org/aln-registry/storage/catalog"
)

// How a change gets into the log (docs/FORMATS.md §4): submit queues it; sequence, one
// goroutine, enters what waits as one batch, which is one transaction; then it is
// published, and then everybody is answered.
//
// Where the catalog is shared, publishEntered, another goroutine, publishes what was
// entered while the next batch is being entered, and all batches that wait for it in one
// publication: over a network an entry costs as much to enter as to store. A batch is
// judged against what was entered, published or not: that it holds for the next batch
// rests on the commit alone, and nobody is answered, nor anything shown, before it is
// published. Publications stay one at a time, in every replica together, and each is of
// all that was committed when it began, so entries are stored in order. On one disk all
// that is one queue of syncs, and larger batches need fewer of them.

// publishRetry is how often a failed publication is tried again without a new change, and
// leftEvery how often what other replicas left is looked for.
const (
	publishRetry = 2 * time.Second
	leftEvery    = 700 * time.Millisecond
	// publishTries is how often it is tried at once where the database goes away meanwhile.
	publishTries = 3
)

// batch is what was judged and entered together.
type batch struct {
	submissions []*submission
	begun       time.Time
}

// submit queues s and waits until it is refused or published. When ctx ends the
// record may still be entered: asking again finds out.
func (r *Registry) submit(ctx context.Context, s *submission) (Receipt, error) {
	s.result = make(chan outcome, 1)
	select {
	case <-r.done:
		return Receipt{}, fmt.Errorf("%w: shutting down", ErrUnavailable)
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	case r.queue <- s:
	}
	select {
	case out := <-s.result:
		return out.receipt, out.err
	case <-r.done:
		select { // it may have been answered at the last moment
		case out := <-s.result:
			return out.receipt, out.err
		default:
		}
		return Receipt{}, fmt.Errorf("%w: shutting down", ErrUnavailable)
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
}

// sequence enters changes until ctx ends. What was begun is finished, whatever ends meanwhile.
func (r *Registry) sequence(ctx context.Context) {
	defer close(r.done)
	published := make(chan struct{})
	go func() {
		defer close(published)
		r.publishEntered(context.WithoutCancel(ctx))
	}()
	r.enterBatches(ctx)
	close(r.entered)
	<-published
	r.acknowledging.Wait()
}

// enterBatches takes what waits as one batch, so that many publishers share a transaction
// and its syncs.
func (r *Registry) enterBatches(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case first := <-r.queue:
			b := batch{r.gather(first), time.Now()}
			r.enteringSince.Store(b.begun.UnixNano())
			r.enter(context.WithoutCancel(ctx), b, false)
			r.enteringSince.Store(0)
		}
	}
}

// attached is how many bytes come with a record.
func (s *submission) attached() (n int64) {
	for _, raw := range s.attachments {
		n += int64(len(raw))
	}
	return n
}

// gather takes what waits, but not more than is judged in good time: the head is locked
// meanwhile, and what is attached is parsed then.
func (r *Registry) gather(first *submission) []*submission {
	batch, attached := []*submission{first}, first.attached()
	for len(batch) < batchMost && attached < batchBytes {
		select {
		case s := <-r.queue:
			batch, attached = append(batch, s), attached+s.attached()
		default:
			return batch
		}
	}
	return batch
}

// enter enters a batch in one transaction, and passes it on to be published. A refusal
// drops only its own record. Any other failure is everybody's, refusals included, since
// they were judged beside changes that may not have come to be; but a transaction that
// failed with several records is tried again with each alone, so that no record can hold
// up the others. doubt: an earlier transaction with it may have been committed.
func (r *Registry) enter(ctx context.Context, b batch, doubt bool) {
	if r.pending.Load() { // nothing is entered on top of what cannot be published
		if err := r.publish(ctx); err != nil {
			r.unpublished(err)
			r.answerAll(b, failure(err, doubt))
			return
		}
		r.pending.Store(false)
	}
	doubt, err := r.commit(ctx, b.submissions, doubt)
	switch {
	case err == nil:
		r.noteChanges(b.submissions)
		if r.lease == nil {
			r.finish(ctx, []batch{b})
		} else {
			r.entered <- b
		}
	case len(b.submissions) > 1 && !errors.Is(err, catalog.ErrUnavailable) && !r.haltIf(err):
		r.Log.Warn("batch failed, trying its records one by one", "records", len(b.submissions), "error", err)
		for _, s := range b.submissions {
			r.enter(ctx, batch{[]*submission{s}, b.begun}, doubt)
		}
	default:
		if doubt {
			r.pending.Store(true)
		}
		r.haltIf(err)
		r.answerAll(b, failure(err, doubt))
	}
}

// doubtTries is how often a batch is looked for of which the database did not say whether
// it is there, doubtPause how long is waited in between, at first.
const (
	doubtTries = 4
	doubtPause = 50 * time.Millisecond
)

// commit judges and enters what waits. Where the database does not say whether it was
// committed, the next transaction finds out, and enters what is not there. doubt is true
// with an error after which some of it may be there.
func (r *Registry) commit(ctx context.Context, waiting []*submission, doubt bool) (stillInDoubt bool, err error) {
	for try := range doubtTries {
		if try > 0 {
			if err := pause(ctx, doubtPause<<try); err != nil {
				return doubt, err
			}
		}
		err = r.Catalog.Update(ctx, func(tx *catalog.Tx) error { return r.applyBatch(ctx, tx, waiting, doubt) })
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, catalog.ErrUncertain) && !(doubt && errors.Is(err, catalog.ErrUnavailable)) {
			return doubt, err
		}
		if !doubt {
			r.Log.Warn("the database did not say whether a batch was committed; looking for it", "records", len(waiting), "error", err)
		}
		doubt = doubt || errors.Is(err, catalog.ErrUncertain)
	}
	return doubt, err
}

// publishEntered publishes what comes, and what others left, until there comes no more.
func (r *Registry) publishEntered(ctx context.Context) {
	every := publishRetry
	if r.lease != nil {
		every = leftEvery
	}
	retry := time.NewTicker(every)
	defer retry.Stop()
	left := int64(0)
	for {
		select {
		case b, ok := <-r.entered:
			if !ok {
				return
			}
			batches := []batch{b}
			select {
			case next, ok := <-r.entered: // entered while the last ones were being published
				if ok {
					batches = append(batches, next)
				}
			default:
			}
			r.publishingSince.Store(b.begun.UnixNano())
			r.finish(ctx, batches)
			r.publishingSince.Store(0)
		case <-retry.C:
			left = r.publishLeft(ctx, left)
		}
	}
}

// publishLeft publishes what an earlier failure left committed only, here or, where left
// entries were committed at the tick before and are not shown yet, in another replica. It
// returns the left of the next tick.
func (r *Registry) publishLeft(ctx context.Context, left int64) int64 {
	if r.pending.Load() || r.Size() < left {
		if err := r.publish(ctx); err != nil {
			r.unpublished(err)
			return 0
		}
		r.pending.Store(false)
	}
	if r.lease == nil {
		return 0
	}
	head, err := r.Catalog.Head(ctx)
	if err != nil {
		return 0 // whoever looks for what is published says so
	}
	return head
}

// finish publishes what was entered and answers everybody.
func (r *Registry) finish(ctx context.Context, batches []batch) {
	var err error
	// Where all were refused there is nothing to publish, unless others have more to show.
	if r.lease != nil || r.pending.Load() || r.committed.Load() > r.Size() {
		err = r.publishSurely(ctx)
	}
	if err == nil {
		var all []*submission
		for _, b := range batches {
			all = append(all, b.submissions...)
		}
		err = r.stillEntered(ctx, all)
	}
	if err != nil {
		r.unpublished(err)
	} else {
		r.pending.Store(false)
	}
	for _, b := range batches {
		if err != nil {
			r.answerAll(b, failure(err, true))
			continue
		}
		r.tell(b, nil)
		r.acknowledge(b)
	}
}

// publishSurely is publish, again where the database went away meanwhile: it may have
// published it, and nobody should be told that this is not known who need not be.
func (r *Registry) publishSurely(ctx context.Context) (err error) {
	for try := range publishTries {
		if err = r.publish(ctx); err == nil || !errors.Is(err, catalog.ErrUnavailable) {
			return err
		}
		if stopped := pause(ctx, doubtPause<<try); stopped != nil {
			return err
		}
	}
	return err
}

// stillEntered is nil where what is published has those of waiting that were entered, each
// at its place. A shared database that was put back between their commit and their
// publication has lost them, and what another replica entered since may stand there.
func (r *Registry) stillEntered(ctx context.Context, waiting []*submission) error {
	if r.lease == nil {
		return nil
	}
	var places []int64
	for _, s := range waiting {
		if s.refusal == nil {
			places = append(places, s.receipt.Index)
		}
	}
	found, err := r.Catalog.PublishedRecords(ctx, places)
	if err != nil {
		return err
	}
	for _, s := range waiting {
		if s.refusal == nil && found[s.receipt.Index] != string(s.receipt.Record) {
			return fmt.Errorf("%w: its database has not got the entry %d any more that was committed: it was put back to an earlier state", ErrBehind, s.receipt.Index)
		}
	}
	return nil
}

// acknowledge answers everybody in b, which is published. Whoever changed an authority
// is told when no replica goes by what was before, and holds up nobody else.
func (r *Registry) acknowledge(b batch) {
	var acts []*submission
	size := int64(0)
	for _, s := range b.submissions {
		if r.lease == nil || s.refusal != nil || !isAuthority(s.record.Type()) {
			s.answer(s.refusal)
			continue
		}
		acts, size = append(acts, s), max(size, s.receipt.Index+1)
	}
	if len(acts) == 0 {
		return
	}
	r.acknowledging.Go(func() {
		err := r.awaitSeen(r.running, size)
		if err == nil { // the leases that were looked at are those of this log
			err = r.stillEntered(r.running, acts)
		}
		if err != nil {
			r.haltIf(err)
			err = fmt.Errorf("%w: %w: it is in force here, but other replicas may not go by it yet: %v", ErrUnavailable, ErrUnpublished, err)
		}
		for _, s := range acts {
			s.answer(err)
		}
	})
}

// isAuthority reports whether records of type t change who may see or do what, beyond the
// artifact that they are about.
func isAuthority(t record.Type) bool {
	switch t {
	case record.TypePublish, record.TypeYank, record.TypeOwn, record.TypeOwnIntent, record.TypeImport:
		return false
	}
	return true
}

// answerAll tells everybody in b, and whoever watches, that it failed.
func (r *Registry) answerAll(b batch, err error) {
	r.tell(b, err)
	for _, s := range b.submissions {
		s.answer(err)
	}
}

// failure is what everybody in a batch is told that failed with err. A full disk
// is told as such, which says that nothing was changed, only if nothing was entered.
func failure(err error, entered bool) error {
	switch {
	case entered:
		return fmt.Errorf("%w: %w: %v", ErrUnavailable, ErrUnpublished, err)
	case errors.Is(err, storage.ErrFull):
		return fmt.Errorf("%w: %w: %v", ErrUnavailable, storage.ErrFull, err)
	case errors.Is(err, ErrUnavailable):
		return err
	}
	return fmt.Errorf("%w: %v", ErrUnavailable, err)
}

// unpublished notes a failure after which something may wait to be published.
func (r *Registry) unpublished(err error) {
	r.Log.Error("changes not published", "error", err)
	r.pending.Store(true)
	r.haltIf(err)
}

// haltIf ends the registry where err says that its log and the stored one are not one, that
// its catalog was put back, or that the stored log is lost: nothing more is written, nothing that is judged answered
// among replicas, and whoever runs it is told.
func (r *Registry) haltIf(err error) bool {
	if errors.Is(err, catalog.ErrRestored) {
		err = fmt.Errorf("%w: %w", ErrBehind, err)
	}
	if !ends(err) {
		return false
	}
	r.lease.end()
	r.stop()
	select {
	case r.failed <- err:
	default: // told already
	}
	return true
}
