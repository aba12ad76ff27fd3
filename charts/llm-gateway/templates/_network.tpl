{{/* Parts of the network policies. */}}

{{/* Networks as peers; link-local addresses, where clouds have their metadata servers, are never among them. */}}
{{- define "llm-gateway.networks" -}}
{{- range . }}
{{- if eq . "0.0.0.0/0" }}
- ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
{{- else if eq . "::/0" }}
- ipBlock: {cidr: "::/0", except: ["fe80::/10", "fd00:ec2::254/128"]}
{{- else }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Namespaces as peers. */}}
{{- define "llm-gateway.namespaces" -}}
{{- range . }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . | quote }}}}
{{- end }}
{{- end }}

{{/* One rule: (list PEERS PORTS); nothing without peers, since a rule without peers lets everything through. */}}
{{- define "llm-gateway.egress" -}}
{{- with index . 0 | trim }}
- to:
  {{- . | nindent 2 }}
  {{- with index $ 1 }}
  ports:
  {{- range . }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* DNS, over UDP and TCP. */}}
{{- define "llm-gateway.dnsEgress" -}}
{{- $dns := .Values.networkPolicy.egress.dns }}
{{- $peers := printf "%s\n%s" (include "llm-gateway.namespaces" $dns.namespaces) (include "llm-gateway.networks" $dns.cidrs) | trim }}
{{- with $peers }}
- to:
  {{- . | nindent 2 }}
  ports:
  {{- range $dns.ports }}
  - {protocol: UDP, port: {{ . }}}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}
{{- end }}

{{/* Redis, wherever it is. */}}
{{- define "llm-gateway.redisEgress" -}}
{{- if eq .Values.redis.mode "bundled" }}
- to:
  - podSelector:
      matchLabels:
        {{- include "llm-gateway.selector" (list . "valkey") | nindent 8 }}
  ports:
  - {protocol: TCP, port: 6379}
{{- else if eq .Values.redis.mode "external" }}
{{- include "llm-gateway.externalRedisEgress" . }}
{{- end }}
{{- end }}

{{/* A Redis that the chart does not make. */}}
{{- define "llm-gateway.externalRedisEgress" -}}
{{- $redis := .Values.networkPolicy.egress.redis }}
{{- $peers := printf "%s\n%s" (include "llm-gateway.namespaces" $redis.namespaces) (include "llm-gateway.networks" $redis.cidrs) }}
{{- include "llm-gateway.egress" (list $peers $redis.ports) }}
{{- end }}

{{/* What the notes warn of: whom the policy keeps from being reached, as far as values tell. Policies add up, so another
one may let it through, and this is no error. */}}
{{- define "llm-gateway.closedAddresses" -}}
{{- $egress := .Values.networkPolicy.egress }}
{{- $root := . }}
{{- $urls := dict "cacheRedis.url" .Values.cacheRedis.url }}
{{- if eq .Values.redis.mode "external" }}
{{- $_ := set $urls "redis.external.url" .Values.redis.external.url }}
{{- end }}
{{- range $value, $url := $urls }}
{{- range ternary (list) (include "llm-gateway.authority" $url | splitList ",") (eq $url "") }}
{{- $port := regexFind ":[0-9]+$" . | trimPrefix ":" | default (ternary "26379" "6379" (contains "+sentinel" $url)) }}
{{- if not (has $port (toStrings $egress.redis.ports)) }}
- {{ $value }}: port {{ $port }} of {{ . }} is none of networkPolicy.egress.redis.ports
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $backend := ternary .Values.registry.backends dict (eq .Values.registry.source "values") }}
{{- with $backend.url }}
{{- $authority := include "llm-gateway.authority" . }}
{{- $port := regexFind ":[0-9]+$" $authority | trimPrefix ":" | default (ternary "443" "80" (hasPrefix "https:" .)) }}
{{- $parts := regexReplaceAll ":[0-9]+$" $authority "" | splitList "." }}
{{- $namespace := eq (len $parts) 1 | ternary $root.Release.Namespace "" }}
{{- if and (gt (len $parts) 2) (eq (slice $parts 2 | first) "svc") }}
{{- $namespace = index $parts 1 }}
{{- end }}
{{- $open := and (has $port (toStrings $egress.backends.ports)) $egress.backends.cidrs }}
{{- if not (or $open (has $namespace $egress.backends.namespaces)) }}
- registry.backends.{{ $name }}: neither is port {{ $port }} of {{ $authority }} one of networkPolicy.egress.backends.ports, nor its
  namespace one of networkPolicy.egress.backends.namespaces
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Hosts and ports of an address. */}}
{{- define "llm-gateway.authority" -}}
{{- regexReplaceAll "^[a-z+]+://([^/?]*).*$" . "${1}" }}
{{- end }}
