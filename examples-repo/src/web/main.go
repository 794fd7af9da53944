// Command web is the shop's front end: one page that shows what the API sells and lets people buy it. It says which
// Pod answered, so that a rolling update and the Service's choice can be watched in the browser.
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

//go:embed page.html
var files embed.FS

type shopfront struct {
	page    *template.Template
	api     string
	key     string
	version string // of the image: 1.0 and 2.0 differ in it and in their colour
	accent  string
	client  *http.Client
}

// view is what the page shows.
type view struct {
	Title, Greeting, Accent, Version, Pod string
	Products                              []struct {
		ID, Name, Price, Emoji string
		Sold                   int
	}
	Problem string
}

func main() {
	page, err := template.ParseFS(files, "page.html")
	if err != nil {
		log.Fatal(err)
	}
	s := &shopfront{page: page, api: os.Getenv("API_URL"), key: os.Getenv("SHOP_KEY"), version: os.Getenv("SHOP_VERSION"), accent: os.Getenv("SHOP_ACCENT"),
		client: &http.Client{Timeout: 3 * time.Second}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.show)
	mux.HandleFunc("POST /buy/{id}", s.buy)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ctx.Done()
		log.Print("told to stop: finishing what is under way")
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
	}()
	log.Printf("web %s listens on %s, api is %s", s.version, server.Addr, s.api)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func (s *shopfront) show(w http.ResponseWriter, r *http.Request) {
	pod, _ := os.Hostname()
	v := view{Title: os.Getenv("TITLE"), Greeting: os.Getenv("GREETING"), Accent: s.accent, Version: s.version, Pod: pod}
	status := http.StatusOK
	if err := s.call(r.Context(), http.MethodGet, "/products", &v.Products); err != nil {
		log.Print(err)
		v.Problem, status = "The shelves cannot be reached just now.", http.StatusBadGateway
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := s.page.Execute(w, v); err != nil {
		log.Print(err)
	}
}

func (s *shopfront) buy(w http.ResponseWriter, r *http.Request) {
	var sold int
	if err := s.call(r.Context(), http.MethodPost, "/buy/"+url.PathEscape(r.PathValue("id")), &sold); err != nil {
		log.Print(err)
		http.Error(w, "that could not be bought", http.StatusBadGateway)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// call asks the API and decodes its answer.
func (s *shopfront) call(ctx context.Context, method, path string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, s.api+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Shop-Key", s.key)
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, response.Status)
	}
	return json.Unmarshal(body, answer)
}
