// Package blocks knows which pages WAL has changed: it reads them off WAL
// records, keeps them as summaries beside the WAL archive, and puts the
// summaries of a range together again, or says that there is a hole.
//
// A set may name pages that did not change, never the other way round. What
// it cannot know stands at Set.
package blocks
