{{/* What a schema cannot say of values that have to fit each other. */}}
{{- define "llm-gateway.checks" -}}
{{- $registry := .Values.registry }}
{{- if eq $registry.source "kubernetes" }}
{{- if not $registry.namespace }}
{{- fail "registry.namespace: is needed with registry.source kubernetes: the namespace of the custom resources" }}
{{- else if eq $registry.namespace .Release.Namespace }}
{{- fail "registry.namespace: must be another namespace than that of the release: whoever may write scenarios there could reach the gateway's own secrets" }}
{{- end }}
{{- if .Values.credentials.secrets }}
{{- fail "credentials.secrets: is for registry.source values and configMap: custom resources name Secrets of their own namespace (secretRef)" }}
{{- end }}
{{- else }}
{{- if .Values.discovery.namespaces }}
{{- fail "discovery.namespaces: needs registry.source kubernetes" }}
{{- end }}
{{- if $registry.writeKeys }}
{{- fail "registry.writeKeys: needs registry.source kubernetes" }}
{{- end }}
{{- end }}
{{- if ne (eq $registry.source "configMap") (ne $registry.configMap "") }}
{{- fail "registry.configMap: goes together with registry.source configMap" }}
{{- end }}
{{- if gt (int .Values.drain.keepAliveSeconds) (int .Values.drain.seconds) }}
{{- fail "drain.keepAliveSeconds: is a part of drain.seconds, and must not be more" }}
{{- end }}
{{- $external := .Values.redis.external }}
{{- if and (eq .Values.redis.mode "external") (eq (empty $external.url) (empty $external.urlSecret.name)) }}
{{- fail "redis.external: either url or urlSecret.name is needed with redis.mode external" }}
{{- end }}
{{- $cache := .Values.cacheRedis }}
{{- if and $cache.url $cache.urlSecret.name }}
{{- fail "cacheRedis: either url or urlSecret.name, not both" }}
{{- end }}
{{- if and (or $cache.credentialsSecret.name $cache.caSecret.name) (not (include "llm-gateway.hasCacheRedis" .)) }}
{{- fail "cacheRedis: url or urlSecret.name is needed with credentialsSecret and caSecret" }}
{{- end }}
{{- $scaling := .Values.autoscaling }}
{{- if ne $scaling.type "none" }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas: must not be more than autoscaling.maxReplicas" }}
{{- end }}
{{- end }}
{{- if eq $scaling.type "hpa" }}
{{- if and (eq (int $scaling.hpa.cpuUtilization) 0) (eq (int $scaling.hpa.inflightRequests) 0) }}
{{- fail "autoscaling.hpa: one of cpuUtilization and inflightRequests has to be more than 0" }}
{{- end }}
{{- if and (gt (int $scaling.hpa.cpuUtilization) 0) (not (dig "requests" "cpu" "" .Values.resources)) }}
{{- fail "resources.requests.cpu: is needed by autoscaling.hpa.cpuUtilization, which is a share of it" }}
{{- end }}
{{- else if eq $scaling.type "keda" }}
{{- if eq $scaling.keda.trigger "prometheus" }}
{{- if not $scaling.keda.prometheus.serverAddress }}
{{- fail "autoscaling.keda.prometheus.serverAddress: is needed with trigger prometheus" }}
{{- end }}
{{- else if eq .Values.redis.mode "none" }}
{{- fail "autoscaling.keda.trigger: gateway adds up what replicas say in Redis, and redis.mode is none" }}
{{- else if not .Values.admin.readTokenSecret.name }}
{{- fail "admin.readTokenSecret.name: is needed with autoscaling.keda.trigger gateway: KEDA asks the management port with that token" }}
{{- end }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts: is needed with ingress.enabled" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs: is needed with httpRoute.enabled" }}
{{- end }}
{{- if and .Values.test.enabled (ne .Values.test.tenant "") (eq .Values.redis.mode "none") }}
{{- fail "test.tenant: a key for it is made in Redis, and redis.mode is none: use test.keySecret" }}
{{- end }}
{{- $monitor := .Values.serviceMonitor }}
{{- if and $monitor.enabled (gt (include "llm-gateway.milliseconds" $monitor.scrapeTimeout | int64) (include "llm-gateway.milliseconds" $monitor.interval | int64)) }}
{{- fail "serviceMonitor.scrapeTimeout: must not be more than serviceMonitor.interval, since the operator refuses that" }}
{{- end }}
{{- if eq .Values.redis.mode "bundled" }}
{{- with dig "limits" "memory" "" .Values.valkey.resources }}
{{- if ge (include "llm-gateway.bytes" $.Values.valkey.maxMemory | float64) (include "llm-gateway.bytes" . | float64) }}
{{- fail "valkey.maxMemory: must be less than valkey.resources.limits.memory, or the server is killed before it is full" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A duration such as 15s. */}}
{{- define "llm-gateway.milliseconds" -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (regexFind "[a-z]+$" .)) }}
{{- end }}

{{/* A quantity of Kubernetes, or a size of Valkey; numbers of values are floats. */}}
{{- define "llm-gateway.bytes" -}}
{{- if kindIs "string" . }}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "kb" 1024 "mb" 1048576 "gb" 1073741824 }}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[A-Za-z]*$" .) | default 1e15) | printf "%.0f" }}
{{- else }}
{{- printf "%.0f" (float64 .) }}
{{- end }}
{{- end }}
