{{/* The settings of the gateway, and the credentials that they read from files. */}}

{{/* Where credentials of the settings are mounted. */}}
{{- define "llm-gateway.settingsFolder" -}}
/etc/llm-gateway/settings
{{- end }}

{{/* Settings by name that say where Redis is. */}}
{{- define "llm-gateway.redisSettings" -}}
{{- $folder := include "llm-gateway.settingsFolder" . }}
{{- $external := .Values.redis.external }}
{{- if eq .Values.redis.mode "bundled" }}
LLM_GATEWAY_REDIS_URL: {{ printf "redis://%s:6379/0" (include "llm-gateway.valkey" .) | quote }}
LLM_GATEWAY_REDIS_CREDENTIALS_FILE: {{ $folder }}/redis-credentials
{{- else if eq .Values.redis.mode "external" }}
{{- if $external.urlSecret.name }}
LLM_GATEWAY_REDIS_URL_FILE: {{ $folder }}/redis-url
{{- else }}
LLM_GATEWAY_REDIS_URL: {{ $external.url | quote }}
{{- end }}
{{- if $external.credentialsSecret.name }}
LLM_GATEWAY_REDIS_CREDENTIALS_FILE: {{ $folder }}/redis-credentials
{{- end }}
{{- if $external.caSecret.name }}
LLM_GATEWAY_REDIS_CA_FILE: {{ $folder }}/redis-ca.crt
{{- end }}
{{- end }}
{{- end }}

{{/* The sources of a projected volume with the credentials of Redis. */}}
{{- define "llm-gateway.redisSources" -}}
{{- $external := .Values.redis.external }}
{{- if eq .Values.redis.mode "bundled" }}
{{- $own := dict "name" (include "llm-gateway.valkey" .) "key" "password" }}
{{ include "llm-gateway.source" (list (ternary .Values.valkey.existingSecret $own (ne .Values.valkey.existingSecret.name "")) "redis-credentials") }}
{{- else if eq .Values.redis.mode "external" }}
{{ include "llm-gateway.source" (list $external.urlSecret "redis-url") }}
{{ include "llm-gateway.source" (list $external.credentialsSecret "redis-credentials") }}
{{ include "llm-gateway.source" (list $external.caSecret "redis-ca.crt") }}
{{- end }}
{{- end }}

{{/* One source of a projected volume: (list {name, key} FILE); nothing without a name. */}}
{{- define "llm-gateway.source" -}}
{{- with index . 0 }}
{{- if .name }}
- secret:
    name: {{ .name }}
    items:
    - {key: {{ .key | quote }}, path: {{ index $ 1 }}}
{{- end }}
{{- end }}
{{- end }}

{{/* The sources of all credentials of the settings. */}}
{{- define "llm-gateway.settingsSources" -}}
{{ include "llm-gateway.redisSources" . }}
{{ include "llm-gateway.source" (list .Values.admin.tokenSecret "admin-token") }}
{{ include "llm-gateway.source" (list .Values.admin.readTokenSecret "admin-read-token") }}
{{- range $name, $secret := .Values.settingsFromSecrets }}
{{ include "llm-gateway.source" (list $secret ($name | trimPrefix "LLM_GATEWAY_" | lower | replace "_" "-")) }}
{{- end }}
{{- end }}

{{/* Every setting by its name. */}}
{{- define "llm-gateway.settings" -}}
{{- $folder := include "llm-gateway.settingsFolder" . }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ include "llm-gateway.settingText" $value }}
{{- end }}
LLM_GATEWAY_LISTEN: {{ printf "%s:8080" .Values.bindAddress | quote }}
LLM_GATEWAY_MANAGEMENT_LISTEN: {{ printf "%s:8081" .Values.bindAddress | quote }}
LLM_GATEWAY_DRAIN_S: {{ printf "%ds" (int .Values.drain.seconds) | quote }}
LLM_GATEWAY_DRAIN_PROPAGATION_DELAY_S: {{ printf "%ds" (int .Values.drain.keepAliveSeconds) | quote }}
{{- if eq .Values.registry.source "kubernetes" }}
LLM_GATEWAY_REGISTRY_SOURCE: kubernetes
LLM_GATEWAY_REGISTRY_NAMESPACE: {{ .Values.registry.namespace | quote }}
LLM_GATEWAY_REGISTRY_WRITE_KEYS: {{ .Values.registry.writeKeys | quote }}
{{- with .Values.discovery.namespaces }}
LLM_GATEWAY_DISCOVERY_NAMESPACES: {{ join "," . | quote }}
{{- end }}
{{- else }}
LLM_GATEWAY_REGISTRY_SOURCE: folder
LLM_GATEWAY_REGISTRY: /etc/llm-gateway/registry
{{- end }}
{{- if .Values.credentials.secrets }}
LLM_GATEWAY_SECRETS_DIR: /etc/llm-gateway/secrets
{{- end }}
{{- include "llm-gateway.redisSettings" . }}
{{- if .Values.admin.tokenSecret.name }}
LLM_GATEWAY_ADMIN_TOKEN_FILE: {{ $folder }}/admin-token
{{- end }}
{{- if .Values.admin.readTokenSecret.name }}
LLM_GATEWAY_ADMIN_READ_TOKEN_FILE: {{ $folder }}/admin-read-token
{{- end }}
{{- range $name, $secret := .Values.settingsFromSecrets }}
{{- if $secret.name }}
{{ $name }}_FILE: {{ $folder }}/{{ $name | trimPrefix "LLM_GATEWAY_" | lower | replace "_" "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* A number as it was written: large ones arrive as floats. */}}
{{- define "llm-gateway.settingText" -}}
{{- if kindIs "float64" . }}
{{- if eq . (floor .) }}{{ printf "%.0f" . | quote }}{{ else }}{{ toString . | quote }}{{ end }}
{{- else }}
{{- toString . | quote }}
{{- end }}
{{- end }}
