#!/bin/sh
# Makes the bucket of a registry where it is not there yet:  bucket.sh URL-OF-THE-STORE BUCKET
# The file that S3_CURL names has the credentials, as curl reads them. A store that has just
# started answers 503 for a while: it is asked again.
set -eu
status=$(curl --silent --show-error --max-time 30 --retry 20 --retry-delay 1 --retry-max-time 60 --config "$S3_CURL" --aws-sigv4 aws:amz:us-east-1:s3 \
	--output /dev/null --write-out '%{http_code}' --request PUT "$1/$2")
case $status in
200) echo "the bucket $2 is made" ;;
409) echo "the bucket $2 is there" ;;
*) echo "the bucket $2 cannot be made: the store answers $status" >&2; exit 1 ;;
esac
