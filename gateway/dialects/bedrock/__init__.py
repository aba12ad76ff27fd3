"""Amazon Bedrock's dialect: requests and answers of the operations Converse and ConverseStream.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""
