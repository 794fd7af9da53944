package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
)

// serve answers: POST /run with a JSON list of arguments runs a command, whose output is the answer and whose exit code
// is in the header Exit-Code; GET and PUT /file?path= read and write a file.
func serve(address string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", runCommand)
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Write(data)
	})
	mux.HandleFunc("PUT /file", func(w http.ResponseWriter, r *http.Request) {
		if err := save(r.URL.Query().Get("path"), r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	return http.ListenAndServe(address, mux)
}

func runCommand(w http.ResponseWriter, r *http.Request) {
	var args []string
	if err := json.NewDecoder(r.Body).Decode(&args); err != nil || len(args) == 0 {
		http.Error(w, "want a JSON list of arguments", http.StatusBadRequest)
		return
	}
	cmd := exec.CommandContext(r.Context(), args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Exit-Code", cmd.ProcessState.String())
	w.Write(out)
}

// save writes a file that survives a power cut.
func save(path string, from io.Reader) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	return errors.Join(err, file.Sync(), file.Close())
}
