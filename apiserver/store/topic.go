package store

// Watchers of one value of a field, such as an agent of the Pods on its node, read a log of their own: they sleep
// while others' objects change, and a thousand of them cost a change no more than one.

// topic is a field and the value its watchers want.
type topic struct{ field, value string }

// topics are a kind's topics that somebody reads. The kind's lock guards them.
type topics struct {
	logs   map[topic]*log
	fields map[string]int // how many topics a field has
}

// topicOf returns what a watcher wants one value of.
func (c *chosen) topicOf() (topic, bool) {
	if c.name != "" {
		return topic{"metadata.name", c.name}, true
	}
	if c.fields == nil {
		return topic{}, false
	}
	for _, r := range c.fields.Requirements() {
		if value, exact := c.fields.RequiresExactMatch(r.Field); exact {
			return topic{r.Field, value}, true
		}
	}
	return topic{}, false
}

// join makes w a reader of the topic's log and returns the log. The kind is locked.
func (t *topics) join(w *watch, on topic, base uint64, limit int) *log {
	l := t.logs[on]
	if l == nil {
		l = newLog(base, limit)
		l.readers = map[*watch]struct{}{}
		if t.logs == nil {
			t.logs, t.fields = map[topic]*log{}, map[string]int{}
		}
		t.logs[on] = l
		t.fields[on.field]++
	}
	l.mu.Lock()
	l.readers[w] = struct{}{}
	l.mu.Unlock()
	return l
}

// leave undoes join. The kind is locked.
func (t *topics) leave(w *watch, on topic, l *log) {
	l.mu.Lock()
	delete(l.readers, w)
	left := len(l.readers)
	l.mu.Unlock()
	if left > 0 || t.logs[on] != l {
		return
	}
	delete(t.logs, on)
	if t.fields[on.field]--; t.fields[on.field] == 0 {
		delete(t.fields, on.field)
	}
}

// publish adds a change to the kind's log and to the topics it concerns, and returns woken with those logs. The kind is locked.
func (k *kindCache) publish(c *change, woken []*log) []*log {
	k.log.append(c)
	woken = append(woken, k.log)
	if len(k.topics.fields) == 0 {
		return woken
	}
	var before, after *itemFields
	if c.old != nil {
		before = &itemFields{kind: k.kind, it: c.old}
	}
	if c.new != nil {
		after = &itemFields{kind: k.kind, it: c.new}
	}
	for field := range k.topics.fields {
		had, has := k.topics.log(field, before), k.topics.log(field, after)
		if had != nil {
			had.append(c)
			woken = append(woken, had)
		}
		if has != nil && has != had {
			has.append(c)
			woken = append(woken, has)
		}
	}
	return woken
}

// log returns the log of the value an item has in a field, nil if nobody reads it.
func (t *topics) log(field string, of *itemFields) *log {
	if of == nil {
		return nil
	}
	return t.logs[topic{field, of.Get(field)}]
}
