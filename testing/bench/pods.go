package main

import (
	"fmt"
	"time"
)

const podManifest = `apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: %[1]s}}
spec:
  containers: [{name: main, image: "` + image + `", args: [sleep]}]
`

const burstManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers: [{name: main, image: "` + image + `", args: [sleep]}]
`

// measurePod takes the time of one Pod after the other.
func measurePod(h *host, s settings, r *report) error {
	fmt.Printf("one Pod, %d rounds\n", s.rounds)
	_, files, w, err := following(h, s)
	if err != nil {
		return err
	}
	var fromCreation, fromSave []time.Duration
	for i := range s.rounds {
		name := fmt.Sprintf("one-%d", i)
		created, saved, err := lifeOf(h, r, w, files, name, fmt.Sprintf(podManifest, name), 1)
		if err != nil {
			return err
		}
		fromCreation, fromSave = append(fromCreation, created), append(fromSave, saved)
	}
	r.seconds("one Pod, created until Running", fromCreation, 0.12, 0)
	r.seconds("one Pod, saved until Running", fromSave, 0, 0)
	return nil
}

// measureBurst takes the time of 50 Pods at once.
func measureBurst(h *host, s settings, r *report) error {
	const pods = 50
	rounds := max(1, s.rounds/4)
	fmt.Printf("%d Pods at once, %d rounds\n", pods, rounds)
	_, files, w, err := following(h, s)
	if err != nil {
		return err
	}
	var fromCreation, fromSave []time.Duration
	for i := range rounds {
		name := fmt.Sprintf("many-%d", i)
		created, saved, err := lifeOf(h, r, w, files, name, fmt.Sprintf(burstManifest, name, pods), pods)
		if err != nil {
			return err
		}
		fromCreation, fromSave = append(fromCreation, created), append(fromSave, saved)
	}
	r.seconds("50 Pods at once, first created until all Running", fromCreation, 2, 0)
	r.seconds("50 Pods at once, saved until all Running", fromSave, 0, 0)
	return nil
}

// lifeOf saves a manifest, waits until its n Pods run, removes it and waits until they are gone. It returns how long
// running took from the first Pod's creation and from the save.
func lifeOf(h *host, r *report, w *watcher, files tree, name, manifest string, n int) (fromCreation, fromSave time.Duration, err error) {
	saved := time.Now()
	if err := files.save(name+".yaml", manifest); err != nil {
		return 0, 0, err
	}
	created, all, err := w.reached(h.ctx, name, "", n, running)
	if err != nil {
		return 0, 0, err
	}
	r.stages(fmt.Sprintf("%d Pods, saved", n), saved, w.stages(name, ""))
	if err := files.remove(name + ".yaml"); err != nil {
		return 0, 0, err
	}
	return all.Sub(created), all.Sub(saved), w.gone(h.ctx, name)
}
