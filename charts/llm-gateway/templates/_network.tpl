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
